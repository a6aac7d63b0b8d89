//! Changing the Corefile while queries come in: none is lost, and a wrong file changes nothing.

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
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
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
