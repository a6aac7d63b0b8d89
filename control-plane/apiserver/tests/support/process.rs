//! A server in a process of its own, over TLS on loopback with the durable store below, that a test may kill.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use apiserver::Config;
use storage_embedded::{Embedded, History, Options};

/// Where the process that serves finds its directory and port.
const DIRECTORY: &str = "FAIRLEAD_TEST_SERVER_DIRECTORY";
const PORT: &str = "FAIRLEAD_TEST_SERVER_PORT";

/// Revisions that are kept: few, so that clients come upon their end.
pub(crate) const REVISIONS: u64 = 200;

/// Serves until it is killed or nobody holds the other end of its input, if this process is the one that is to.
pub(crate) fn serve_if_asked() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
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
                revisions: REVISIONS,
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
pub(crate) struct Process {
    home: tempfile::TempDir,
    test: &'static str,
    port: u16,
    process: Child,
}

impl Process {
    /// Runs the test of this name again, which must begin with [`serve_if_asked`].
    pub(crate) fn start(test: &'static str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Self::spawn(test, home.path(), port);
        Process {
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

    /// Its directory.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// For its administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.home().join("kubeconfig")
    }

    /// As after a power cut.
    pub(crate) fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Self::spawn(self.test, self.home.path(), self.port);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
