//! Connected UDP sockets leave a backend that left its Service.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use net::Netns;
use tokio::sync::watch;

use crate::support::{Api, Ground, dns_service, dns_slice, in_namespace, ip, start, until};

#[test]
fn connected_udp_sockets_leave_a_backend_that_left() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, story(&ground));
}

/// A process that connects a UDP socket to the Service and waits for what comes.
struct Client(Child);

impl Client {
    fn start(ground: &Ground) -> Client {
        let script = "echo 0 > \"$0\"/cgroup.procs && exec 3<>/dev/udp/10.96.0.10/53 && echo in && exec cat <&3";
        let mut child = Command::new("bash")
            .args(["-c", script])
            .arg(ground.cgroup())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash is installed");
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "in\n", "connected");
        Client(child)
    }

    fn waits(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn story(ground: &Ground) {
    ip("route add 10.244.0.0/24 dev up0");
    let api = Api::default();
    api.put("services", dns_service());
    api.put("endpointslices", dns_slice(&["10.244.0.2", "10.244.0.3"]));
    let settings = ground.settings();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    let ready = until(&mut status, |status| status.ready).await;

    let mut clients: Vec<Client> = (0..24).map(|_| Client::start(ground)).collect();
    assert!(clients.iter_mut().all(Client::waits));

    // One backend leaves: its clients hear of it, the others go on.
    api.put("endpointslices", dns_slice(&["10.244.0.3"]));
    until(&mut status, |status| status.turns > ready.turns).await;
    let left = within(&mut clients, |waiting| waiting < 24).await;
    assert!(left > 0, "half of them, more or less, were somewhere else");

    // The last one leaves, and nobody waits any longer.
    api.put("endpointslices", dns_slice(&[]));
    within(&mut clients, |waiting| waiting == 0).await;
    stop.send_replace(true);
    daemon.await.unwrap();
}

/// Looks until so many clients wait; gives how many.
async fn within(clients: &mut [Client], is: impl Fn(usize) -> bool) -> usize {
    let looking = async {
        loop {
            let waiting = clients.iter_mut().filter_map(|c| c.waits().then_some(()));
            let waiting = waiting.count();
            if is(waiting) {
                return waiting;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(10), looking).await;
    found.expect("within ten seconds")
}
