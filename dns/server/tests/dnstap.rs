//! `dnstap` to an observer that reads Frame Streams and dnstap's messages by their specifications.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dns_server::corefile::Scheme;
use dns_server::instance::{Environment, Instance, Listen};
use dns_server::message::{Request, Transport};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, UnixListener};
use tokio::time::timeout;

const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";
const PATIENCE: Duration = Duration::from_secs(10);

/// A frame: control with its type, or data.
#[derive(Debug, PartialEq)]
enum Frame {
    Control(u32, Vec<u8>),
    Data(Vec<u8>),
}

async fn frame(stream: &mut (impl AsyncRead + Unpin)) -> Frame {
    let length = timeout(PATIENCE, stream.read_u32()).await.expect("a frame");
    match length.expect("an orderly end") {
        0 => {
            let length = stream.read_u32().await.unwrap();
            let mut octets = vec![0; length as usize];
            stream.read_exact(&mut octets).await.unwrap();
            let (kind, fields) = octets.split_first_chunk::<4>().expect("a type");
            Frame::Control(u32::from_be_bytes(*kind), fields.to_vec())
        }
        length => {
            let mut octets = vec![0; length as usize];
            stream.read_exact(&mut octets).await.unwrap();
            Frame::Data(octets)
        }
    }
}

/// Fields of a protobuf message by number: numbers as octets, low first.
fn fields(mut octets: &[u8]) -> BTreeMap<u64, Vec<u8>> {
    fn varint(octets: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = octets.split_first().expect("an octet");
            *octets = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut found = BTreeMap::new();
    while !octets.is_empty() {
        let key = varint(&mut octets);
        let value = match key & 7 {
            0 => varint(&mut octets).to_le_bytes().to_vec(),
            kind @ (2 | 5) => {
                let length = if kind == 5 {
                    4
                } else {
                    varint(&mut octets) as usize
                };
                let (value, rest) = octets.split_at(length);
                octets = rest;
                value.to_vec()
            }
            kind => panic!("wire type {kind}"),
        };
        found.insert(key >> 3, value);
    }
    found
}

/// The handshake: READY, our ACCEPT, START, all for one content type.
async fn shake(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let content = [&[0, 0, 0, 1, 0, 0, 0, 22], CONTENT_TYPE].concat();
    assert_eq!(frame(stream).await, Frame::Control(4, content.clone()));
    let accept = [&[0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 1], content.as_slice()].concat();
    stream.write_all(&accept).await.unwrap();
    assert_eq!(frame(stream).await, Frame::Control(2, content));
}

async fn ask(instance: &Arc<Instance>, name: &str) {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let raw = Bytes::from(message.to_vec().unwrap());
    let client = "192.0.2.7:4711".parse().unwrap();
    let local = "192.0.2.53:53".parse().unwrap();
    let mut request = Request::new(message, raw, client, local, Transport::Udp);
    let listen = Listen {
        scheme: Scheme::Dns,
        address: "[::]:53".parse().unwrap(),
    };
    instance.serve(&listen, &mut request).await;
}

#[tokio::test]
async fn an_observer_sees_queries_and_answers() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("tap")).unwrap();
    let text = ". {\n dnstap tap full {\n  identity here\n }\n hosts /nonexistent {\n  192.0.2.9 known.example\n }\n}\n";
    let environment = Arc::new(Environment::new(53));
    let file = folder.path().join("Corefile");
    let instance = Arc::new(Instance::build(&environment, &file, text).unwrap());
    instance.start_plugins();
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    shake(&mut stream).await;
    ask(&instance, "known.example.").await;
    ask(&instance, "unknown.example.").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        let Frame::Data(octets) = frame(&mut stream).await else {
            panic!("no data");
        };
        let outer = fields(&octets);
        assert_eq!(outer[&1], b"here");
        assert_eq!(outer[&15][0], 1, "MESSAGE");
        let inner = fields(&outer[&14]);
        assert_eq!((inner[&2][0], inner[&3][0]), (1, 1), "INET, UDP");
        assert_eq!(
            (inner[&4].as_slice(), inner[&5].as_slice()),
            (&[192, 0, 2, 7][..], &[192, 0, 2, 53][..])
        );
        let kind = inner[&1][0];
        let message = if kind == 5 { &inner[&10] } else { &inner[&14] };
        let message = Message::from_vec(message).unwrap();
        let name = message.queries[0].name().to_string();
        seen.push((
            kind,
            name,
            message.metadata.response_code,
            message.answers.len(),
        ));
    }
    let (known, unknown) = ("known.example.".to_owned(), "unknown.example.".to_owned());
    assert_eq!(
        seen,
        [
            (5, known.clone(), ResponseCode::NoError, 0),
            (6, known, ResponseCode::NoError, 1),
            (5, unknown.clone(), ResponseCode::NoError, 0),
            (6, unknown, ResponseCode::ServFail, 0),
        ]
    );
    // The configuration goes: the observer is told that nothing more comes.
    drop(instance);
    assert_eq!(frame(&mut stream).await, Frame::Control(3, Vec::new()));
}

/// Both who is connected to and who connected hear of the end before the process is gone.
#[tokio::test]
async fn observers_hear_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("tap")).unwrap();
    let shown = folder.path().display();
    let text = &format!(". {{\n dnstap tap\n dnstap listen {shown}/place\n whoami\n}}\n");
    let environment = Arc::new(Environment::new(53));
    let file = folder.path().join("Corefile");
    let instance = Arc::new(Instance::build(&environment, &file, text).unwrap());
    instance.start_plugins();
    let (mut told, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    shake(&mut told).await;
    let place = folder.path().join("place");
    let connecting = timeout(PATIENCE, async {
        loop {
            match tokio::net::UnixStream::connect(&place).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let mut came = connecting.await.expect("the server listens");
    shake(&mut came).await;
    ask(&instance, "a.example.").await;
    timeout(PATIENCE, instance.end())
        .await
        .expect("all are told");
    for mut stream in [told, came] {
        for _ in 0..2 {
            assert!(matches!(frame(&mut stream).await, Frame::Data(_)));
        }
        assert_eq!(frame(&mut stream).await, Frame::Control(3, Vec::new()));
    }
}

/// An upstream that denies everything.
async fn denier() -> std::net::SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            buffer[2] |= 0x80;
            buffer[3] = 3;
            socket.send_to(&buffer[..length], client).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn observers_connect_and_see_what_is_forwarded() {
    let upstream = denier().await;
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let text = format!(
        ". {{\n metadata\n dnstap listen tcp://{address} full {{\n  extra \"by {{/forward/upstream}}\"\n }}\n \
         forward . {upstream}\n}}\n"
    );
    let environment = Arc::new(Environment::new(53));
    let file = std::path::Path::new("/nowhere/Corefile");
    let instance = Arc::new(Instance::build(&environment, file, &text).unwrap());
    instance.start_plugins();
    let connecting = timeout(PATIENCE, async {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let mut stream = connecting.await.expect("the server listens");
    shake(&mut stream).await;
    ask(&instance, "unknown.example.").await;
    let (mut seen, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let Frame::Data(octets) = frame(&mut stream).await else {
            panic!("no data");
        };
        let outer = fields(&octets);
        let inner = fields(&outer[&14]);
        let message = inner.get(&10).or(inner.get(&14)).unwrap();
        ids.push([message[0], message[1]]);
        let extra = String::from_utf8(outer[&3].clone()).unwrap();
        let port = u16::from_le_bytes([inner[&7][0], inner[&7][1]]);
        seen.push((inner[&1][0], port, extra));
    }
    let (by, nobody) = (format!("by {upstream}"), "by -".to_owned());
    let expected = [
        (5, 53, nobody),
        (7, upstream.port(), by.clone()),
        (8, upstream.port(), by.clone()),
        (6, 53, by),
    ];
    assert_eq!(seen, expected);
    assert!(ids.iter().all(|id| *id == ids[0]), "one exchange: {ids:?}");
    drop(instance);
    assert_eq!(frame(&mut stream).await, Frame::Control(3, Vec::new()));
}
