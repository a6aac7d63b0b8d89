//! The Python client of Kubernetes against the server, over TLS on loopback with the durable store below: scripts in
//! `tests/python/`, which may ask for a restart of the server, by `kill -9`.
//!
//! The interpreter is `$PYTHON`, else `python3`; without the package `kubernetes` in it the tests fail, unless
//! `$FAIRLEAD_WITHOUT_PYTHON` says that they may be left out.

#[path = "support/process.rs"]
mod process;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use process::Process;

/// The longest that a script may be silent.
const PATIENCE: Duration = Duration::from_secs(120);

/// An interpreter that has the client.
fn python() -> PathBuf {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import kubernetes.informer, kubernetes.dynamic"])
        .output();
    assert!(
        has.is_ok_and(|output| output.status.success()),
        "these tests need the Python client of Kubernetes, 36 or later, in {}: `pip install kubernetes`, in a virtual \
         environment if need be, and name its interpreter in $PYTHON",
        python.display()
    );
    python.into()
}

/// Runs a script to its end.
fn run(server: &mut Process, python: &Path, script: &str) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let errors = server.home().join("errors");
    let mut child = Command::new(python)
        .arg(scripts.join(script))
        .current_dir(server.home())
        .env("KUBECONFIG", server.kubeconfig())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("no_proxy", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let (send, lines) = channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    let mut input = child.stdin.take().unwrap();
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line == "restart" => {
                server.restart();
                input.write_all(b"done\n").unwrap();
            }
            Ok(line) => said.push(line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                said.push("it was silent for too long".to_owned());
                break;
            }
        }
    }
    let status = child.wait().unwrap();
    let errors = fs::read_to_string(errors).unwrap();
    assert!(
        status.success() && said == ["ended"],
        "{script}: {}\n{errors}",
        said.join("\n")
    );
}

/// Runs a script against a server of its own; in the process that is to serve, serves.
fn with_server(test: &'static str, script: &str, prepare: impl FnOnce(&Path)) {
    process::serve_if_asked();
    if std::env::var_os("FAIRLEAD_WITHOUT_PYTHON").is_some() {
        println!("left out: there is no Python client of Kubernetes here");
        return;
    }
    let python = python();
    let mut server = Process::start(test);
    prepare(server.home());
    run(&mut server, &python, script);
}

#[test]
fn every_common_kind() {
    with_server("every_common_kind", "kinds.py", |home| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut request = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        request
            .distinguished_name
            .push(rcgen::DnType::CommonName, "jane");
        let pem = request.serialize_request(&key).unwrap().pem().unwrap();
        fs::write(home.join("request.pem"), pem).unwrap();
    });
}

#[test]
fn informers_through_kill_9_and_compaction() {
    let test = "informers_through_kill_9_and_compaction";
    with_server(test, "informers.py", |_| {});
}

#[test]
fn definitions_and_server_side_apply() {
    let test = "definitions_and_server_side_apply";
    with_server(test, "dynamic.py", |_| {});
}
