//! Changing the Corefile while queries come in: none is lost, and a wrong file changes nothing.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dns_server::corefile::Scheme;
use dns_server::instance::Environment;
use dns_server::instance::Listen;
use dns_server::message::Outcome;
use dns_server::message::Request;
use dns_server::message::Transport;
use dns_server::reload::Reloader;
use hickory_proto::op::Message;
use hickory_proto::op::Query;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

fn corefile(text: &str, port: u16) -> String {
    format!(
        ". {{\n template IN TXT {{\n  answer \"{{{{ .Name }}}} 1 IN TXT {text}\"\n }}\n prometheus 127.0.0.1:{port}\n \
         ready 127.0.0.1:{port}\n health 127.0.0.1:{port}\n cache\n reload 2s 1s\n}}\n"
    )
}

async fn ask(reloader: &Reloader) -> String {
    let mut message = Message::query();
    message.add_query(Query::query(
        Name::from_ascii("a.example.").unwrap(),
        RecordType::TXT,
    ));
    let here = "127.0.0.1:53".parse().unwrap();
    let mut request = Request::new(message, Bytes::new(), here, here, Transport::Udp);
    let listen = Listen {
        scheme: Scheme::Dns,
        address: "[::]:53".parse().unwrap(),
    };
    let instance = reloader.current().load_full();
    match instance.serve(&listen, &mut request).await {
        Outcome::Answer(response)
            if response.message.metadata.response_code == ResponseCode::NoError =>
        {
            response.message.answers[0].data.to_string()
        }
        other => format!("{other:?}"),
    }
}

async fn get(port: u16, path: &str) -> String {
    try_get(port, path).await.unwrap()
}

async fn try_get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn start(file: &Path) -> Arc<Reloader> {
    let environment = Arc::new(Environment::new(53));
    Reloader::start(environment, Some(file.to_path_buf())).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_is_lost_and_a_wrong_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corefile");
    let port = free_port();
    std::fs::write(&file, corefile("v0", port)).unwrap();
    let reloader = start(&file);
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (reloader, stop, asked) =
                (Arc::clone(&reloader), Arc::clone(&stop), Arc::clone(&asked));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(&reloader).await;
                    assert!(answer.starts_with('v'), "{answer}");
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 1..=40 {
        std::fs::write(&file, corefile(&format!("v{round}"), port)).unwrap();
        reloader.reload().unwrap();
        assert_eq!(ask(&reloader).await, format!("v{round}"));
        std::fs::write(&file, ". {\n cash 30\n}\n").unwrap();
        let error = reloader.reload().unwrap_err().to_string();
        assert!(error.contains(":2: unknown plugin \"cash\""), "{error}");
        assert_eq!(ask(&reloader).await, format!("v{round}"));
        assert!(get(port, "/ready").await.ends_with("OK"));
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(asked.load(Ordering::Relaxed) > 1000);
    let metrics = get(port, "/metrics").await;
    assert!(
        metrics.contains("coredns_reload_failed_total 40"),
        "{metrics}"
    );
    assert_eq!(
        metrics
            .matches("coredns_reload_version_info{hash=\"sha512\"")
            .count(),
        1
    );
    assert!(get(port, "/health").await.ends_with("OK"));
    assert!(get(port, "/else").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_watched_also_after_it_was_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corefile");
    let port = free_port();
    std::fs::write(&file, corefile("v0", port)).unwrap();
    let reloader = start(&file);
    let watching = tokio::spawn(Arc::clone(&reloader).watch());
    std::fs::write(&file, "wrong {\n").unwrap();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(ask(&reloader).await, "v0");
    std::fs::write(&file, corefile("v1", port)).unwrap();
    let mut answer = String::new();
    for _ in 0..80 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = ask(&reloader).await;
        if answer == "v1" {
            break;
        }
    }
    assert_eq!(answer, "v1");
    watching.abort();
}

#[tokio::test]
async fn an_address_in_use_keeps_the_configuration_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corefile");
    let port = free_port();
    std::fs::write(&file, corefile("v0", port)).unwrap();
    let reloader = start(&file);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap().port();
    std::fs::write(&file, corefile("v1", other)).unwrap();
    let error = reloader.reload().unwrap_err().to_string();
    assert!(error.contains("cannot listen on 127.0.0.1"), "{error}");
    assert_eq!(ask(&reloader).await, "v0");
    assert!(get(port, "/health").await.ends_with("OK"));
}

/// Sockets beside a configuration that changes how they are bound.
struct Bound {
    file: std::path::PathBuf,
    reloader: Arc<Reloader>,
    server: dns_server::transport::Server,
    _folder: tempfile::TempDir,
}

impl Bound {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("Corefile");
        std::fs::write(&file, text).unwrap();
        let reloader = start(&file);
        let server = dns_server::transport::Server::open(Arc::clone(&reloader)).unwrap();
        Self {
            file,
            reloader,
            server,
            _folder: folder,
        }
    }

    fn change(&self, text: &str) -> Result<(), String> {
        std::fs::write(&self.file, text).unwrap();
        self.reloader.reload().map_err(|error| error.to_string())
    }

    fn listens(&self) -> Vec<String> {
        let listens = self.server.local_addresses().into_iter();
        let shown = listens.map(|(of, local)| format!("{}://{local}", of.scheme.text()));
        shown.collect()
    }
}

/// The octets of an answer by datagram and by stream, if they are answers at all.
async fn answered(server: &str) -> bool {
    let query = b"\x47\x11\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    let patience = Duration::from_secs(2);
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
    let mut answer = [0; 512];
    let by_datagram = async {
        socket.connect(server).await?;
        socket.send(query).await?;
        socket.recv(&mut answer).await
    };
    let datagram = tokio::time::timeout(patience, by_datagram).await;
    let by_stream = async {
        let mut stream = tokio::net::TcpStream::connect(server).await?;
        stream.write_u16(query.len() as u16).await?;
        stream.write_all(query).await?;
        stream.read_u16().await
    };
    let stream = tokio::time::timeout(patience, by_stream).await;
    matches!((datagram, stream), (Ok(Ok(_)), Ok(Ok(_))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_changes_how_it_is_bound() {
    let port = free_port();
    let block = |bind: &str| format!(".:{port} {{\n {bind}\n whoami\n}}\n");
    let server = Bound::new(&block("bind 127.0.0.1"));
    assert!(answered(&format!("127.0.0.1:{port}")).await);
    for (bind, listens, addresses) in [
        ("# every", vec!["[::]"], vec!["127.0.0.1", "127.0.0.9"]),
        (
            "bind 127.0.0.1 127.0.0.9",
            vec!["127.0.0.1", "127.0.0.9"],
            vec!["127.0.0.1", "127.0.0.9"],
        ),
        ("bind 0.0.0.0", vec!["0.0.0.0"], vec!["127.0.0.2"]),
        ("bind 127.0.0.9", vec!["127.0.0.9"], vec!["127.0.0.9"]),
    ] {
        server.change(&block(bind)).unwrap();
        let listens: Vec<String> = listens
            .iter()
            .map(|address| format!("dns://{address}:{port}"))
            .collect();
        assert_eq!(server.listens(), listens, "{bind}");
        for address in addresses {
            assert!(
                answered(&format!("{address}:{port}")).await,
                "{bind} {address}"
            );
        }
    }
    assert!(!answered(&format!("127.0.0.1:{port}")).await, "closed");
    // A second process is told so, and nothing of this one changes.
    let other = std::net::TcpListener::bind(("127.0.0.3", 0)).unwrap();
    let taken = other.local_addr().unwrap().port();
    let text = format!(
        "{}.:{taken} {{\n bind 127.0.0.3\n whoami\n}}\n",
        block("# every")
    );
    let error = server.change(&text).unwrap_err();
    assert!(
        error.contains(&format!("listen on dns://127.0.0.3:{taken}")),
        "{error}"
    );
    assert_eq!(server.listens(), [format!("dns://127.0.0.9:{port}")]);
    assert!(answered(&format!("127.0.0.9:{port}")).await);
    let metrics = common::metrics(&server.reloader);
    assert!(
        metrics.contains("coredns_reload_failed_total 1"),
        "{metrics}"
    );
    drop(server);
    assert!(!answered(&format!("127.0.0.9:{port}")).await, "closed");
}

/// Asks by stream and datagram, over and over, until told to stop; gives how often. Nobody is reset or left without an
/// answer, whatever happens meanwhile.
fn asking(server: String) -> impl FnOnce() -> u64 {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let asking = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut asked = 0;
        while !told.load(Ordering::Relaxed) {
            let query = b"\x47\x11\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
            let mut stream = std::net::TcpStream::connect(&server).expect("a connection");
            stream.write_all(&[0, query.len() as u8]).unwrap();
            stream.write_all(query).unwrap();
            stream.read_exact(&mut [0; 14]).expect("an answer");
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(&server).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            socket.send(query).unwrap();
            socket.recv(&mut [0; 512]).expect("an answer by datagram");
            asked += 1;
        }
        asked
    });
    move || {
        stop.store(true, Ordering::Relaxed);
        asking.join().expect("everybody is answered")
    }
}

/// The wrong file names addresses that could be listened on, and that would take clients of those in service.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_served_resets_nobody() {
    let port = free_port();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap();
    let server = Bound::new(&format!(".:{port} {{\n whoami\n}}\n"));
    let stop = asking(format!("127.0.0.1:{port}"));
    for _ in 0..50 {
        let narrow = format!(".:{port} {{\n bind 127.0.0.1\n whoami\n ready {other}\n}}\n");
        let error = server.change(&narrow).unwrap_err();
        assert!(error.contains("cannot listen on"), "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(stop() > 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_reset_where_a_port_changes_how_it_is_bound() {
    let port = free_port();
    let server = Bound::new(&format!(".:{port} {{\n bind 127.0.0.1\n whoami\n}}\n"));
    let stops: Vec<_> = (0..3)
        .map(|_| asking(format!("127.0.0.1:{port}")))
        .collect();
    for round in 0..8 {
        let bind = if round % 2 == 0 {
            "# every"
        } else {
            "bind 127.0.0.1"
        };
        server
            .change(&format!(".:{port} {{\n {bind}\n whoami\n}}\n"))
            .unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let asked: u64 = stops.into_iter().map(|stop| stop()).sum();
    assert!(asked > 10);
}

/// An address that changes what is spoken there is never closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_changes_its_scheme_stays_open() {
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let block = |scheme: &str| {
        let [cert, key] = [&cert, &key].map(|path| path.display());
        format!("{scheme}://.:{port} {{\n bind 127.0.0.1\n tls {cert} {key}\n whoami\n}}\n")
    };
    let server = Bound::new(&block("tls"));
    let done = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&done);
    let connecting = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            let stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            // Nobody resets it while it is being made, and nobody who has taken it closes it at once.
            stream
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            let waited = std::io::Read::read(&mut &stream, &mut [0]).map_err(|error| error.kind());
            assert_eq!(waited, Err(std::io::ErrorKind::WouldBlock));
        }
    });
    for scheme in ["https", "tls", "https", "tls"] {
        server.change(&block(scheme)).unwrap();
        assert_eq!(server.listens(), [format!("{scheme}://127.0.0.1:{port}")]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    done.store(true, Ordering::Relaxed);
    connecting.join().expect("nobody is reset");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_port_changes_how_it_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corefile");
    let port = free_port();
    let write = |address: &str| {
        let text = format!(". {{\n whoami\n health {address}:{port} {{\n lameduck 6s\n }}\n}}\n");
        std::fs::write(&file, text).unwrap();
    };
    write("");
    let reloader = start(&file);
    for address in ["127.0.0.1", "", "127.0.0.1"] {
        write(address);
        reloader.reload().unwrap();
        assert!(get(port, "/health").await.ends_with("OK"));
    }
}

/// What a file says holds while it is in service, and nothing of a file that never was.
#[tokio::test]
async fn a_lameduck_ends_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corefile");
    let port = free_port();
    let text = |options: &str| {
        format!(". {{\n whoami\n health 127.0.0.1:{port} {options}\n reload 2s\n}}\n")
    };
    std::fs::write(&file, text("{\n lameduck 6s\n }")).unwrap();
    let reloader = start(&file);
    assert_eq!(reloader.current().load().lameduck(), Duration::from_secs(6));
    let wrong = format!("{} a {{\n nothing\n}}\n", text("{\n lameduck 60s\n }"));
    std::fs::write(&file, wrong).unwrap();
    reloader.reload().unwrap_err();
    assert_eq!(reloader.current().load().lameduck(), Duration::from_secs(6));
    std::fs::write(&file, text("")).unwrap();
    reloader.reload().unwrap();
    assert_eq!(reloader.current().load().lameduck(), Duration::ZERO);
    assert!(reloader.current().load().reload().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_a_pattern_newly_matches_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corefile");
    let text = "import custom/*.server\n. {\n whoami\n reload 2s 1s\n}\n";
    std::fs::write(&file, text).unwrap();
    std::fs::create_dir(folder.path().join("custom")).unwrap();
    let reloader = start(&file);
    let watching = tokio::spawn(Arc::clone(&reloader).watch());
    let mut changes = reloader.changes();
    let answer = "example {\n template IN TXT {\n  answer \"{{ .Name }} 1 IN TXT new\"\n }\n}\n";
    std::fs::write(folder.path().join("custom/a.server"), answer).unwrap();
    let changed = tokio::time::timeout(Duration::from_secs(20), changes.changed()).await;
    changed.expect("it is seen").unwrap();
    assert_eq!(ask(&reloader).await, "new");
    watching.abort();
}

/// Each block with `ready` counts, whichever of their addresses is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_tells_of_every_block() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corefile");
    let (port, other) = (free_port(), free_port());
    let text = format!(
        "cluster.local {{\n kubernetes {{\n endpoint http://127.0.0.1:1\n }}\n ready 127.0.0.1:{port}\n}}\n\
         . {{\n whoami\n ready 127.0.0.1:{port}\n}}\n\
         example {{\n whoami\n ready 127.0.0.1:{other}\n}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let _reloader = start(&file);
    for port in [port, other] {
        let told = get(port, "/ready").await;
        assert!(told.starts_with("HTTP/1.1 503"), "{told}");
        assert!(told.ends_with("kubernetes"), "{told}");
    }
}

/// An API server with nothing in it, which takes a while to say so; nobody listens where it is `dead`.
async fn api_server(wait: Duration, dead: bool) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    if dead {
        return address;
    }
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 8192];
                loop {
                    let length = stream.read(&mut request).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&request[..length]).into_owned();
                    if length == 0 || text.contains("watch=true") {
                        // Nothing ever changes.
                        return std::future::pending().await;
                    }
                    tokio::time::sleep(wait).await;
                    let list = r#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#;
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{list}",
                        list.len()
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_takes_over_once_it_knows_the_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corefile");
    let cluster = |address| {
        format!(
            "cluster.local {{\n kubernetes {{\n  endpoint http://{address}\n }}\n}}\n. {{\n template IN TXT {{\n  \
             answer \"{{{{ .Name }}}} 1 IN TXT v0\"\n }}\n}}\n"
        )
    };
    std::fs::write(&file, ". {\n whoami\n}\n").unwrap();
    let reloader = start(&file);
    let wait = Duration::from_millis(300);
    std::fs::write(&file, cluster(api_server(wait, false).await)).unwrap();
    let before = reloader.current().load().digest().to_owned();
    let reloaded = tokio::task::spawn_blocking({
        let reloader = Arc::clone(&reloader);
        move || reloader.reload()
    });
    tokio::time::sleep(wait / 2).await;
    assert_eq!(reloader.current().load().digest(), before);
    reloaded.await.unwrap().unwrap();
    assert_eq!(reloader.current().load().unready(), Vec::<&str>::new());
    assert_eq!(ask(&reloader).await, "v0");

    // One that hears of nobody does not take over from one that knows, but from one that does not either.
    std::fs::write(&file, cluster(api_server(wait, true).await)).unwrap();
    let reload = |reloader: &Arc<Reloader>| {
        let reloader = Arc::clone(reloader);
        tokio::task::spawn_blocking(move || reloader.reload())
    };
    let error = reload(&reloader).await.unwrap().unwrap_err().to_string();
    assert!(
        error.starts_with("not ready after 5 s: kubernetes"),
        "{error}"
    );
    assert_eq!(reloader.current().load().unready(), Vec::<&str>::new());
    let unready = start(&file);
    std::fs::write(&file, cluster(api_server(wait, true).await)).unwrap();
    reload(&unready).await.unwrap().unwrap();
}
