//! `secondary` with a catalog, fed by another server over real sockets.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns_server::instance::Environment;
use dns_server::reload::Reloader;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

fn code(server: SocketAddr, name: &str) -> Option<ResponseCode> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let patience = Some(Duration::from_secs(2));
    socket.set_read_timeout(patience).unwrap();
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    socket.send_to(&message.to_vec().unwrap(), server).unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).ok()?;
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    Some(answer.metadata.response_code)
}

fn until(server: SocketAddr, expected: [(&str, ResponseCode); 2]) {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        let found = expected.map(|(name, _)| code(server, name));
        if found == expected.map(|(_, code)| Some(code)) {
            return;
        }
        assert!(Instant::now() < limit, "{expected:?}: {found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whole or not at all.
fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join("new"), text).unwrap();
    std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

fn catalog(folder: &Path, serial: u32, members: &str) {
    let head = format!("@ 0 SOA invalid. invalid. {serial} 1 1 600 0\n@ 0 NS invalid.\n");
    let text = format!("{head}version 0 TXT \"2\"\n{members}");
    write(folder, "catalog", &text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalogs_zones_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let zone =
        "@ 60 SOA ns hm 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 192.0.2.53\nwww 60 A 192.0.2.1\n";
    write(at, "zone", zone);
    catalog(at, 1, "one.zones 0 PTR a.example.\n");
    let shown = at.display();
    // As knot does, the primary tells of the catalog by streams alone.
    let primary = common::run(
        &format!(
            ". {{\n bind 127.0.0.1\n transfer {{\n  to *\n }}\n file {shown}/catalog catalog.example {{\n  reload 50ms\n }}\n \
             file {shown}/zone a.example b.example\n}}\n\
             catalog.example {{\n bind 127.0.0.1\n view datagrams {{\n  expr proto() == 'udp'\n }}\n}}\n"
        ),
        None,
    )
    .await;
    let from = primary.address;
    let server = common::run(
        &format!(
            ". {{\n bind 127.0.0.1\n secondary catalog.example {{\n  transfer from {from}\n  catalog\n }}\n}}\n"
        ),
        None,
    )
    .await;
    let (address, place) = (server.address, at.to_path_buf());
    let seen = tokio::task::spawn_blocking(move || {
        let (a, b) = ("www.a.example.", "www.b.example.");
        until(
            address,
            [(a, ResponseCode::NoError), (b, ResponseCode::Refused)],
        );
        catalog(&place, 2, "two.zones 0 PTR b.example.\n");
        until(
            address,
            [(a, ResponseCode::Refused), (b, ResponseCode::NoError)],
        );
        // A broken catalog changes nothing.
        write(
            &place,
            "catalog",
            "@ 0 SOA invalid. invalid. 3 1 1 600 0\n@ 0 NS invalid.\n",
        );
        std::thread::sleep(Duration::from_millis(1500));
        until(
            address,
            [(a, ResponseCode::Refused), (b, ResponseCode::NoError)],
        );
    });
    seen.await.unwrap();
    server.stop().await;
    primary.stop().await;
}

/// A zone is good until it expires, whatever becomes of its primary and of the Corefile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_outlasts_a_reload_without_its_primary() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    write(
        at,
        "zone",
        "@ 60 SOA ns hm 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 192.0.2.53\nwww 60 A 192.0.2.1\n",
    );
    let shown = at.display();
    let primary = common::run(
        &format!(
            ". {{\n bind 127.0.0.1\n transfer {{\n  to *\n }}\n file {shown}/zone a.example\n}}\n"
        ),
        None,
    )
    .await;
    let from = primary.address;
    let corefile = |more: &str| {
        let text = format!("a.example {{\n secondary {{\n  transfer from {from}\n }}\n{more}}}\n");
        write(at, "Corefile", &text);
    };
    corefile("");
    let environment = Arc::new(Environment::new(53));
    let reloader = Reloader::start(environment, Some(at.join("Corefile"))).unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while !reloader.current().load().unready().is_empty() {
        assert!(Instant::now() < limit, "the zone is not transferred");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    primary.stop().await;
    corefile(" errors\n");
    reloader.reload().unwrap();
    assert_eq!(reloader.current().load().unready(), Vec::<&str>::new());
    // Another primary's zone is another one.
    let text = "a.example {\n secondary {\n  transfer from 127.0.0.1:9\n }\n}\n";
    write(at, "Corefile", text);
    reloader.reload().unwrap();
    assert_eq!(reloader.current().load().unready(), ["secondary"]);
}
