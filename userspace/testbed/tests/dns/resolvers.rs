//! Names as programs look them up, through a search path with `ndots:5`: by glibc's resolver and by musl's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::Process;

use crate::stage::{SERVICES, Stage};

/// What a Pod's resolv.conf says, and a suffix of the node's own.
const RESOLV_CONF: &str = "nameserver 127.0.0.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n";

/// Prints the addresses of the names that it is given, as getaddrinfo(3) finds them.
const PROGRAM: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = 0;
        int error = getaddrinfo(argv[i], 0, &hints, &found);
        printf("%s", argv[i]);
        if (error) printf(" none");
        for (; !error && found; found = found->ai_next) {
            char text[64] = "";
            void *address = found->ai_family == AF_INET
                ? (void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr
                : (void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr;
            inet_ntop(found->ai_family, address, text, sizeof text);
            printf(" %s", text);
        }
        printf("\n");
    }
    return 0;
}
"#;

/// Names and what each must come to.
const NAMES: [(&str, &str); 8] = [
    ("web", "10.96.7.1"),
    ("web.default", "10.96.7.1"),
    ("web.default.svc", "10.96.7.1"),
    ("web.default.svc.cluster.local", "10.96.7.1"),
    ("web.default.svc.cluster.local.", "10.96.7.1"),
    // Outside the cluster: each suffix is denied, and the name as it stands is found.
    ("www.example.org", "192.0.2.80"),
    ("alias", "10.96.7.1"),
    ("missing", "none"),
];

fn compiled(compiler: &str, folder: &Path) -> Result<PathBuf> {
    let source = folder.join("lookup.c");
    std::fs::write(&source, PROGRAM)?;
    let program = folder.join(format!("lookup-{compiler}"));
    let status = Command::new(compiler)
        .arg("-o")
        .args([&program, &source])
        .status()
        .with_context(|| format!("{compiler} is missing: `cargo xtask setup` installs it"))?;
    ensure!(status.success(), "{compiler} cannot compile: {status}");
    Ok(program)
}

#[test]
fn resolvers_of_glibc_and_musl_find_names_by_search_path() -> Result<()> {
    let stage = Stage::set()?;
    let service = |name: &str, spec| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let web = json!({"clusterIP": "10.96.7.1", "ports": [{"port": 80}]});
    let alias = json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"});
    stage.api.create(SERVICES, service("web", web))?;
    stage.api.create(SERVICES, service("alias", alias))?;
    let folder = stage.node.folder();
    let conf = folder.join("resolv.conf");
    std::fs::write(&conf, RESOLV_CONF)?;
    let switch = folder.join("nsswitch.conf");
    std::fs::write(&switch, "hosts: dns\n")?;
    // The last Service's name is there a moment after the write.
    let socket = stage.socket()?;
    testbed::wait_for("the alias", std::time::Duration::from_secs(10), || {
        let answer = crate::stage::ask(&socket, "alias.default.svc.cluster.local").ok()?;
        matches!(answer, crate::stage::Answer::Address(_)).then_some(())
    })?;
    for compiler in ["cc", "musl-gcc"] {
        let program = compiled(compiler, folder)?;
        let script = format!(
            "mount --bind {} /etc/resolv.conf && if [ -e /etc/nsswitch.conf ]; then mount --bind {} \
             /etc/nsswitch.conf; fi && exec \"$@\"",
            conf.display(),
            switch.display()
        );
        let place = stage.node.place()?.without_cgroup();
        let mut command = place.command(Path::new("unshare"))?;
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        command.arg(&program).args(NAMES.map(|(name, _)| name));
        let told = Process::start(&mut command, compiler)?.finish()?;
        let expected: Vec<String> = NAMES.map(|(name, found)| format!("{name} {found}")).into();
        assert_eq!(told.lines().collect::<Vec<_>>(), expected, "{compiler}");
    }
    Ok(())
}
