//! Connected sockets in network namespaces of the test's own. Needs root.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use net::{Netns, Sockets};

/// Runs `ip`.
fn ip(args: &str) {
    let status = Command::new("ip")
        .args(args.split(' '))
        .status()
        .expect("the ip command of iproute2 is installed");
    assert!(status.success(), "ip {args}");
}

/// A namespace that everybody can find, for as long as the value lives.
struct Named(String);

impl Named {
    fn create(n: usize) -> Named {
        let name = format!("fairlead-sockets-{}-{n}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Named(name)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.0));
    }
}

fn connect(from: &str, peer: &str) -> UdpSocket {
    let socket = UdpSocket::bind(from).unwrap();
    socket.connect(peer).unwrap();
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).unwrap();
    socket
}

/// A thousand connected sockets of both families in ten namespaces: those with the peer in question are closed, those
/// with another one are not.
#[test]
fn sockets_with_a_peer_are_closed_in_every_namespace() {
    const GONE: &str = "127.0.0.7:5353";
    let names: Vec<Named> = (0..10).map(Named::create).collect();
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for Named(name) in &names {
        let opened = Netns::named(name).unwrap().run(|| {
            let of_v4 = (0..50).map(|_| connect("127.0.0.1:0", GONE));
            let of_v6 = (0..50).map(|_| connect("[::]:0", "[::ffff:127.0.0.7]:5353"));
            let others = ["127.0.0.7:5354", "127.0.0.8:5353"];
            let others = others.map(|peer| connect("127.0.0.1:0", peer));
            (of_v4.chain(of_v6).collect::<Vec<_>>(), others)
        });
        let (here, others) = opened.unwrap();
        gone.extend(here);
        kept.extend(others);
    }
    let peer = GONE.parse().unwrap();
    let mut closed = 0;
    for netns in Netns::all() {
        // Namespaces of others may end meanwhile.
        let found = netns.run(|| {
            let sockets = Sockets::open().unwrap();
            let found = sockets.connected(17).unwrap();
            let found = found.into_iter().filter(|socket| socket.peer == peer);
            found
                .map(|socket| sockets.destroy(&socket).unwrap())
                .count()
        });
        closed += found.unwrap_or(0);
    }
    assert_eq!((gone.len(), closed), (1_000, 1_000));
    for socket in &gone {
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    }
    for socket in &kept {
        assert!(socket.peer_addr().is_ok(), "{socket:?}");
    }
}
