//! Queries that go on to another server over TLS and HTTPS: unbound answers them.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_proto::rr::{Name, RecordType};
use testbed::{Node, Process, wait_for};

use crate::differential::ask;
use crate::stage::fairlead;

const COREFILE: &str = "
dot.test:5300 {
    bind 127.0.0.1
    forward . tls://127.0.0.1:5853 {
        tls cert.pem
        tls_servername localhost
    }
}
post.test:5300 {
    bind 127.0.0.1
    forward . https://127.0.0.1:5443 {
        tls cert.pem
        tls_servername localhost
    }
}
get.test:5300 {
    bind 127.0.0.1
    forward . https://127.0.0.1:5443 {
        doh_method GET
        tls cert.pem
        tls_servername localhost
    }
}
distrusted.test:5300 {
    bind 127.0.0.1
    forward . tls://127.0.0.1:5853 {
        tls cert.pem
        tls_servername somebody.else
    }
}
";

const UNBOUND: &str = r#"
server:
  interface: 127.0.0.1@5853
  interface: 127.0.0.1@5443
  tls-port: 5853
  https-port: 5443
  tls-service-key: "FOLDER/key.pem"
  tls-service-pem: "FOLDER/cert.pem"
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "FOLDER"
  use-syslog: no
  module-config: "iterator"
  local-zone: "test." static
  local-data: "www.dot.test. 60 A 192.0.2.1"
  local-data: "www.post.test. 60 A 192.0.2.2"
  local-data: "www.get.test. 60 A 192.0.2.3"
  local-data: "www.distrusted.test. 60 A 192.0.2.4"
remote-control:
  control-enable: no
"#;

#[test]
fn queries_go_on_over_tls_and_https() -> Result<()> {
    let node = Node::create()?;
    let folder = node.folder();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(folder.join("cert.pem"), key.cert.pem())?;
    std::fs::write(folder.join("key.pem"), key.signing_key.serialize_pem())?;
    std::fs::write(folder.join("Corefile"), COREFILE)?;
    let unbound = UNBOUND.replace("FOLDER", &folder.display().to_string());
    std::fs::write(folder.join("unbound.conf"), unbound)?;
    let place = node.place()?.without_cgroup();
    let mut command = place.command(Path::new("unbound"))?;
    command.args(["-d", "-p", "-c"]);
    command.arg(folder.join("unbound.conf"));
    let _theirs = Process::start(&mut command, "unbound")
        .context("unbound is missing: `cargo xtask test` installs it on Debian")?;
    let mut command = place.command(&fairlead()?)?;
    command.args(["dns", "--conf"]).arg(folder.join("Corefile"));
    let mut ours = Process::start(&mut command, "fairlead dns")?;
    ours.line(Duration::from_secs(20), |line| {
        line.starts_with("listening ")
    })?;
    let socket = node.netns().run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(SocketAddr::from(([127, 0, 0, 1], 5300)))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        anyhow::Ok(socket)
    })?;
    for (zone, address) in [
        ("dot", Some("192.0.2.1")),
        ("post", Some("192.0.2.2")),
        ("get", Some("192.0.2.3")),
        // Not the name that the certificate is for.
        ("distrusted", None),
    ] {
        let name = Name::from_ascii(format!("www.{zone}.test."))?;
        // The first may find unbound still at its start.
        let told = wait_for(zone, Duration::from_secs(20), || {
            let told = ask(&socket, &name, RecordType::A).ok()?;
            (address.is_none() || !told.answers.is_empty()).then_some(told)
        })?;
        let expected = address.map(|address| format!("www.{zone}.test. 60 a {address}"));
        assert_eq!(
            Vec::from_iter(told.answers),
            Vec::from_iter(expected),
            "{zone}"
        );
    }
    Ok(())
}
