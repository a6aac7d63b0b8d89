//! The Python client of Kubernetes against the server, over TLS on loopback with the durable store below: scripts in
//! `tests/python/`, which may ask for a restart of the server, by `kill -9`.
//!
//! The interpreter is `$PYTHON`, else `python3`; without the package `kubernetes` in it the tests fail, unless
//! `$FAIRLEAD_WITHOUT_PYTHON` says that they may be left out.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use apiserver::Config;
use storage_embedded::{Embedded, History, Options};

/// The longest that a script may be silent.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the process that serves finds its directory and port.
const DIRECTORY: &str = "FAIRLEAD_TEST_PYTHON_DIRECTORY";
const PORT: &str = "FAIRLEAD_TEST_PYTHON_PORT";

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

/// Serves until it is killed or nobody holds the other end of its input. Keeps little history, so that clients come
/// upon its end.
fn serve(directory: &Path) -> ! {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = Options {
            history: History {
                revisions: 200,
                age: Duration::ZERO,
                ..History::default()
            },
            ..Options::default()
        };
        let store = Embedded::open(directory.join("store"), options).unwrap();
        let config = Config {
            bind_address: [127, 0, 0, 1].into(),
            port,
            ..Config::new(directory.join("server"))
        };
        let app = apiserver::build(config, Arc::new(store)).await.unwrap();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.unwrap();
        let url = app.url(listener.local_addr().unwrap());
        app.write_kubeconfig(&directory.join("kubeconfig"), &url)
            .unwrap();
        println!("serving");
        app.serve(listener, std::future::pending()).await.unwrap();
    });
    unreachable!("it was not asked to end")
}

/// A process that serves, and its directory.
struct Server {
    home: tempfile::TempDir,
    test: &'static str,
    port: u16,
    process: Child,
}

impl Server {
    fn start(test: &'static str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Self::spawn(test, home.path(), port);
        Server {
            home,
            test,
            port,
            process,
        }
    }

    fn spawn(test: &str, home: &Path, port: u16) -> Child {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(DIRECTORY, home)
            .env(PORT, port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let serves = lines.any(|line| line.is_ok_and(|line| line.ends_with("serving")));
        assert!(serves, "the server starts");
        process
    }

    /// As after a power cut.
    fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Self::spawn(self.test, self.home.path(), self.port);
    }

    /// Runs a script to its end.
    fn run(&mut self, python: &Path, script: &str) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
        let errors = self.home.path().join("errors");
        let mut child = Command::new(python)
            .arg(scripts.join(script))
            .current_dir(self.home.path())
            .env("KUBECONFIG", self.home.path().join("kubeconfig"))
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
                    self.restart();
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
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a script against a server of its own; in the process that is to serve, serves.
fn with_server(test: &'static str, script: &str, prepare: impl FnOnce(&Path)) {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        serve(Path::new(&directory));
    }
    if std::env::var_os("FAIRLEAD_WITHOUT_PYTHON").is_some() {
        println!("left out: there is no Python client of Kubernetes here");
        return;
    }
    let python = python();
    let mut server = Server::start(test);
    prepare(server.home.path());
    server.run(&python, script);
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
