//! How a socket's backend is chosen: through a table of places, and by the connections that each backend has.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use abi::frontends::flags::{LEAST, SPREAD};
use abi::{Backend, Frontend, family};
use bpf::Datapath;
use plan::{Step, Store};

use crate::ground::{Ground, ip};
use crate::samples::key4;

/// A process that holds `count` connections to service 1 open.
struct Client(Child);

impl Client {
    fn start(ground: &Ground, count: u32) -> Client {
        let script = format!(
            "echo $$ > {}/cgroup.procs
             for i in $(seq {count}); do exec {{fd}}<>/dev/tcp/10.0.0.1/80 || exit 1; done
             echo ready; read -r",
            ground.settings().cgroup_root.unwrap().display()
        );
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Client(child)
    }

    fn end(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

/// Service 1 with two backends that listen here, through a table whose places are as given.
fn service(datapath: &mut Datapath, flags: u32, places: [u8; 8]) -> [TcpListener; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let mut steps = Vec::new();
    for (id, listener) in (1..).zip(&listeners) {
        let SocketAddr::V4(at) = listener.local_addr().unwrap() else {
            unreachable!()
        };
        let mut addr = [0; 16];
        addr[..4].copy_from_slice(&at.ip().octets());
        let backend = Backend {
            addr,
            port: at.port().into(),
            family: family::V4,
            flags: 0,
            service: 1,
        };
        steps.push(Step::PutBackend(id, backend));
    }
    let [a, b, c, d, e, f, g, h] = places;
    let words = [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ];
    steps.push(Step::PutSpread {
        offset: 5,
        words: [[8, 2], words].into(),
    });
    steps.push(Step::PutRing {
        offset: 0,
        backends: vec![1, 2, 5],
    });
    let frontend = Frontend {
        service: 1,
        ring_len: 2,
        flags,
        ..Frontend::default()
    };
    steps.push(Step::PutFrontend(key4(1), frontend));
    datapath.apply(&steps).unwrap();
    listeners
}

#[test]
fn a_socket_goes_through_the_table_of_places() {
    let ground = Ground::new("places");
    ground.in_netns(|| {
        ip("link set lo up");
        let mut datapath = Datapath::open(&ground.settings()).unwrap();
        for only in [1_u8, 2] {
            let listeners = service(&mut datapath, SPREAD, [only; 8]);
            let client = Client::start(&ground, 20);
            let listener = &listeners[usize::from(only) - 1];
            for _ in 0..20 {
                listener.accept().unwrap();
            }
            client.end();
            let counted = [1, 2].map(|id| datapath.connections(id));
            assert_eq!(counted, [0, 0], "nobody asked to count");
        }
    });
}

#[test]
fn connections_are_counted_until_their_sockets_are_closed() {
    let ground = Ground::new("least");
    ground.in_netns(|| {
        ip("link set lo up");
        let mut datapath = Datapath::open(&ground.settings()).unwrap();
        let listeners = service(&mut datapath, LEAST, [1; 8]);
        let counted = |datapath: &Datapath| [1, 2].map(|id| datapath.connections(id));
        let first = Client::start(&ground, 60);
        let [one, two] = counted(&datapath);
        assert_eq!(one + two, 60);
        // By chance alone they would be further apart once in fifty runs; with a choice of two, hardly ever.
        assert!(one.abs_diff(two) <= 14, "{one} and {two}");
        let second = Client::start(&ground, 10);
        assert_eq!(counted(&datapath).iter().sum::<u64>(), 70);
        first.end();
        let began = Instant::now();
        while counted(&datapath).iter().sum::<u64>() != 10 {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "{:?}",
                counted(&datapath)
            );
            std::thread::yield_now();
        }
        // An agent that starts again finds the counts, and its programs go on counting.
        drop(datapath);
        let datapath = Datapath::open(&ground.settings()).unwrap();
        assert_eq!(counted(&datapath).iter().sum::<u64>(), 10);
        second.end();
        while counted(&datapath) != [0, 0] {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{:?}",
                counted(&datapath)
            );
            std::thread::yield_now();
        }
        drop(listeners);
    });
}
