//! For tests: a real etcd on free ports of the loopback, with a directory that goes away with it. Everything panics
//! where it fails.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// One member, alone in its cluster.
#[derive(Debug)]
pub struct Server {
    /// Where clients reach it.
    pub url: String,
    arguments: Vec<String>,
    directory: TempDir,
    child: Option<Child>,
}

impl Server {
    /// Starts one without TLS, and waits until it listens.
    ///
    /// # Panics
    /// Where it does not work out.
    pub fn start() -> Self {
        Self::start_with("http", |_| Vec::new())
    }

    /// Starts one whose clients speak `scheme`, with flags that may name files in its directory.
    ///
    /// # Panics
    /// Where it does not work out.
    pub fn start_with(scheme: &str, flags: impl FnOnce(&std::path::Path) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().expect("tests have a file system and ports");
        let (client, peer) = (free_port(), free_port());
        let url = format!("{scheme}://127.0.0.1:{client}");
        let peers = format!("http://127.0.0.1:{peer}");
        let data = directory.path().join("data").display().to_string();
        let mut arguments: Vec<String> = [
            ("--data-dir", data.as_str()),
            ("--listen-client-urls", &url),
            ("--advertise-client-urls", &url),
            ("--listen-peer-urls", &peers),
            ("--initial-advertise-peer-urls", &peers),
            ("--initial-cluster", &format!("default={peers}")),
            ("--log-level", "error"),
            // What is tested is what we make of etcd, not the disk.
            ("--heartbeat-interval", "50"),
            ("--election-timeout", "250"),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()])
        .collect();
        arguments.extend(flags(directory.path()));
        let mut server = Self {
            url,
            arguments,
            directory,
            child: None,
        };
        server.run();
        server
    }

    /// A file of the server's.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs it, on what it had when it was killed.
    ///
    /// # Panics
    /// Where it does not work out.
    pub fn run(&mut self) {
        let port = self.url.rsplit(':').next().expect("a URL with a port");
        let address = format!("127.0.0.1:{port}");
        self.child = Some(self.spawn());
        let began = Instant::now();
        while !listens(&address) {
            assert!(began.elapsed() < Duration::from_secs(30), "etcd listens");
            std::thread::sleep(Duration::from_millis(20));
            // Somebody else may have had the port for a moment.
            let ended = |child: &mut Child| child.try_wait().ok().flatten().is_some();
            if self.child.as_mut().is_some_and(ended) {
                self.child = Some(self.spawn());
            }
        }
    }

    fn spawn(&self) -> Child {
        Command::new("etcd")
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is on PATH: install Debian's etcd-server, as `cargo xtask setup` does")
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// Where it does not work out.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("tests have a file system and ports");
            child.wait().expect("tests have a file system and ports");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether somebody listens at an address of this host. Who connects to a port that nobody listens on may meet itself,
/// where the kernel has chosen that very port for it.
fn listens(address: &str) -> bool {
    std::net::TcpStream::connect(address)
        .is_ok_and(|socket| socket.local_addr().ok() != socket.peer_addr().ok())
}

/// A port that nobody listens on.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("tests have a file system and ports");
    listener
        .local_addr()
        .expect("tests have a file system and ports")
        .port()
}

/// How long puts took.
#[derive(Debug)]
pub struct Puts {
    /// All of them.
    pub took: Duration,
    /// Each.
    pub each: Vec<Duration>,
}

/// Puts as many values of `length` bytes as asked for into an etcd, without anything of ours in between: each of
/// `clients` has a connection of its own and waits for one put before the next. For benches.
///
/// # Panics
/// Where etcd fails.
pub async fn put(url: &str, clients: usize, count: usize, length: usize) -> Puts {
    let value = bytes::Bytes::from(vec![b'v'; length]);
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut connected = Vec::new();
    for _ in 0..clients {
        let options = crate::Options::new(vec![url.to_owned()]);
        let rpc = crate::rpc::Rpc::new(&options).expect("the URL is one of etcd's");
        rpc.put(crate::proto::PutRequest::default())
            .await
            .expect_err("a key is needed, and the connection is made");
        connected.push(rpc);
    }
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for (client, rpc) in connected.into_iter().enumerate() {
        let (next, value) = (next.clone(), value.clone());
        running.spawn(async move {
            let mut each = Vec::new();
            loop {
                let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if i >= count {
                    return each;
                }
                let began = Instant::now();
                let request = crate::proto::PutRequest {
                    key: format!("/bench/{client}/{i}").into(),
                    value: value.clone(),
                    lease: 0,
                };
                rpc.put(request).await.expect("etcd takes the put");
                each.push(began.elapsed());
            }
        });
    }
    let mut each = Vec::new();
    while let Some(done) = running.join_next().await {
        each.extend(done.expect("a client works to its end"));
    }
    Puts {
        took: began.elapsed(),
        each,
    }
}
