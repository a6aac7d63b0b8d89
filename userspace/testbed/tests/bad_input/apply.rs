//! `fairlead apply` with manifests that are wrong.

use anyhow::Result;
use testbed::wait_for;

use crate::stage::{PATIENCE, Stage};

/// File, its text, and what is said of it.
const MANIFESTS: &[(&str, &str, &[&str])] = &[
    (
        "broken.yaml",
        "apiVersion: v1\nkind: [",
        &["broken.yaml: the manifest is not YAML", "line 2"],
    ),
    (
        "broken.json",
        "{\"apiVersion\": ",
        &["broken.json: the manifest is not YAML", "line 1"],
    ),
    (
        "nothing.yaml",
        "just words",
        &["nothing.yaml", "no apiVersion"],
    ),
    (
        "nameless.yaml",
        "apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}]}",
        &["nameless.yaml", "no metadata.name"],
    ),
    (
        "kind.yaml",
        "apiVersion: v1\nkind: Servise\nmetadata: {name: x}",
        &[
            "kind.yaml",
            "no matches for kind \"Servise\" in version \"v1\"",
        ],
    ),
    (
        "field.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 80, targtPort: 8080}]}",
        &[
            "field.yaml",
            ".spec.ports[port=80,protocol=\"TCP\"].targtPort: field not declared in schema",
        ],
    ),
    (
        "range.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {clusterIP: 192.0.2.1, ports: [{port: 80}]}",
        &[
            "range.yaml",
            "spec.clusterIPs",
            "192.0.2.1",
            "current range",
        ],
    ),
    (
        "port.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 70000}]}",
        &["port.yaml", "spec.ports[0].port", "70000"],
    ),
    (
        "slice.yaml",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x}\naddressType: IPv4\n\
         endpoints: [{addresses: [localhost]}]",
        &["slice.yaml", "endpoints[0].addresses[0]", "localhost"],
    ),
];

#[test]
fn each_is_named_and_the_good_one_among_them_is_applied() -> Result<()> {
    let stage = Stage::up(&[])?;
    let folder = stage.node.folder().join("manifests");
    std::fs::create_dir(&folder)?;
    for (file, text, _) in MANIFESTS {
        std::fs::write(folder.join(file), text)?;
    }
    std::fs::write(
        folder.join("zz-good.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\ndata: {a: b}\n",
    )?;
    let path = folder.display().to_string();
    let ended = stage.fairlead(&["apply", "-f", &path])?;
    let count = format!(
        "{0} of {1} were refused",
        MANIFESTS.len(),
        MANIFESTS.len() + 1
    );
    ended.assert_refused(1, &[&count]);
    assert_eq!(ended.stdout, "configmap/good created\n");
    for (file, _, words) in MANIFESTS {
        ended.assert_refused(1, words);
        assert!(
            ended.stderr.contains(&format!("manifests/{file}: ")),
            "{ended:?}"
        );
    }
    let good = folder.join("zz-good.yaml").display().to_string();
    let again = stage.fairlead(&["apply", "-f", &good])?;
    assert_eq!(again.stdout, "configmap/good unchanged\n", "{again:?}");
    let pod = folder.join("pod.yaml");
    let path = pod.display().to_string();
    let spec = "spec: {containers: [{name: c, image: 'registry.example/web:1'}]}";
    for (metadata, word) in [
        ("{name: p, labels: {a: b}}", "created"),
        ("{name: p, labels: {a: b}}", "unchanged"),
        ("{name: p}", "configured"),
    ] {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\n{spec}\n");
        std::fs::write(&pod, text)?;
        let ended = stage.fairlead(&["apply", "-f", &path])?;
        assert_eq!(ended.stdout, format!("pod/p {word}\n"), "{ended:?}");
    }
    stage
        .fairlead(&["apply", "-f", "/nowhere/at.all"])?
        .assert_refused(1, &["/nowhere/at.all: cannot be read"]);
    let empty = stage.node.folder().join("empty");
    std::fs::create_dir(&empty)?;
    let empty = empty.display().to_string();
    stage
        .fairlead(&["apply", "-f", &empty])?
        .assert_refused(1, &["--filename"]);
    stage.assert_good()
}

/// Names beside the tables are wanted, not needed; applying needs the server.
#[test]
fn a_server_that_is_gone_is_named() -> Result<()> {
    let mut stage = Stage::up(&[])?;
    if let Some(mut running) = stage.running.take() {
        running.process.kill()?;
    }
    let file = stage.node.folder().join("a.yaml");
    std::fs::write(
        &file,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
    )?;
    let ended = stage.fairlead(&["apply", "-f", &file.display().to_string()])?;
    ended.assert_refused(1, &["no answer from https://172.31.0.1:6443", "refused"]);
    let ended = stage.show(&["service", "list"])?;
    ended.assert_done();
    assert!(ended.stdout.contains("10.96.0.30:80"), "{ended:?}");
    assert!(ended.stderr.contains("names are not shown"), "{ended:?}");
    wait_for("the lock to be let go", PATIENCE, || {
        let status = stage.show(&["status"]).ok()?;
        status
            .stdout
            .contains("no process programs these tables now")
            .then_some(())
    })?;
    stage.assert_good()
}
