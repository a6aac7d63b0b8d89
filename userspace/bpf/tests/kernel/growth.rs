//! Tables that are swapped for larger ones while they are used.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use abi::{Backend, BackendId, family};
use bpf::{Capacities, Datapath, Flow};
use plan::{Step, Store};

use crate::ground::{Ground, ip};
use crate::samples::{backend, frontend, key4};

/// The table's fill and capacity.
fn fill(datapath: &Datapath, table: &str) -> (u32, u32) {
    let fills = datapath.fill().unwrap();
    let fill = fills.iter().find(|fill| fill.table == table).unwrap();
    (fill.used, fill.capacity)
}

/// An Ethernet frame with a SYN from a client's port to service 1.
pub(crate) fn syn(sport: u16) -> Vec<u8> {
    let [high, low] = sport.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([10, 244, 0, 200, 10, 0, 0, 1]);
    frame.extend([
        high, low, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x10, 0, 0, 0, 0, 0,
    ]);
    frame
}

const SERVICES: u32 = 40;

/// Frontends 1 to [`SERVICES`], the first of which leads to where `listener` listens.
pub(crate) fn steps(listener: &TcpListener) -> Vec<Step> {
    let port = listener.local_addr().unwrap().port();
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&[127, 0, 0, 1]);
    let mut steps = vec![Step::PutBackend(
        1,
        Backend {
            addr,
            port: port.into(),
            family: family::V4,
            flags: 0,
            service: 1,
        },
    )];
    let others = 2..=SERVICES;
    steps.extend(others.map(|n| Step::PutBackend(n as BackendId, backend(n, n as u8))));
    let ids: Vec<u32> = (1..=SERVICES).collect();
    steps.push(Step::PutRing {
        offset: 0,
        backends: ids,
    });
    steps.extend((1..=SERVICES).map(|n| Step::PutFrontend(key4(n), frontend(n, n - 1, 1))));
    steps
}

#[test]
fn full_tables_grow_under_the_traffic_that_uses_them() {
    let ground = Ground::new("growth");
    ground.in_netns(|| {
        ip("link set lo up");
        let mut settings = ground.settings();
        settings.capacities = Capacities {
            frontends: SERVICES,
            rings: SERVICES,
            backends: SERVICES + 1,
            affinity: 64,
            flows: 1024,
            ..settings.capacities
        };
        let mut datapath = Datapath::open(&settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        datapath.apply(&steps(&listener)).unwrap();
        assert_eq!(fill(&datapath, "FRONTENDS4"), (SERVICES, SERVICES));
        let one_more = Step::PutFrontend(key4(SERVICES + 1), frontend(1, 0, 1));
        let refused = datapath.apply(std::slice::from_ref(&one_more)).unwrap_err();
        assert!(refused.source.is_full());
        for sport in 1_000..1_100 {
            datapath
                .test_run("pod_ingress", &syn(sport), &[], 1)
                .unwrap();
        }
        let flows = |datapath: &Datapath| {
            let mut flows: Vec<Flow> = Vec::new();
            let all = datapath.walk_flows(|some| {
                flows.extend(some);
                true
            });
            all.unwrap();
            flows.sort_by_key(|flow| format!("{flow:?}"));
            flows
        };
        let (tables, before) = (datapath.observe().unwrap(), flows(&datapath));
        assert_eq!(before.len(), 200);

        // Connections are made all the time, and none fails.
        let stop = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs
             n=0
             while [ -e {} ]; do exec 3<>/dev/tcp/10.0.0.1/80 || exit 1; n=$((n + 1)); done
             echo $n",
            settings.cgroup_root.as_ref().unwrap().display(),
            stop.path().display()
        );
        let client = Command::new("bash")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let connected = || {
            listener.accept().unwrap();
        };
        connected();
        let larger = Capacities {
            frontends: 4 * SERVICES,
            rings: 4 * SERVICES,
            backends: 4 * SERVICES,
            flows: 4_096,
            ..settings.capacities
        };
        std::thread::scope(|scope| {
            let accepting = scope.spawn(|| {
                // The client ends when its file is gone, and the listener's last connection with it.
                listener.set_nonblocking(true).unwrap();
                while stop.path().exists() {
                    if listener.accept().is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            datapath.grow(&larger).unwrap();
            assert_eq!(datapath.observe().unwrap(), tables, "all was taken over");
            assert_eq!(flows(&datapath), before);
            assert_eq!(fill(&datapath, "FRONTENDS4"), (SERVICES, 4 * SERVICES));
            datapath.apply(std::slice::from_ref(&one_more)).unwrap();
            fs::remove_file(stop.path()).unwrap();
            accepting.join().unwrap();
        });
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "a connection failed");
        let made: u32 = String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(made > 0);

        // A later process that asks for more gets it too, and one that asks for less changes nothing.
        drop(datapath);
        for (frontends, holds) in [(1_000, 1_000), (16, 1_000)] {
            settings.capacities = Capacities {
                frontends,
                ..larger
            };
            let datapath = Datapath::open(&settings).unwrap();
            assert_eq!(fill(&datapath, "FRONTENDS4"), (SERVICES + 1, holds));
            assert_eq!(flows(&datapath), before);
        }
        let pins = fs::read_dir(
            ground
                .bpffs()
                .join(format!("v{}/maps", abi::LAYOUT_VERSION)),
        );
        let names = pins.unwrap().map(|entry| entry.unwrap().file_name());
        assert!(
            names
                .into_iter()
                .all(|name| !name.to_string_lossy().contains('~'))
        );
    });
}

#[test]
fn what_a_process_left_aside_is_taken_over_by_the_next() {
    let ground = Ground::new("aside");
    ground.in_netns(|| {
        let mut settings = ground.settings();
        settings.capacities.frontends = SERVICES;
        let mut datapath = Datapath::open(&settings).unwrap();
        let listener = TcpListener::bind("[::]:0").unwrap();
        datapath.apply(&steps(&listener)).unwrap();
        let tables = datapath.observe().unwrap();
        drop(datapath);
        // As a process leaves it that ends between the two.
        let maps = ground
            .bpffs()
            .join(format!("v{}/maps", abi::LAYOUT_VERSION));
        fs::rename(maps.join("FRONTENDS4"), maps.join("FRONTENDS4~old")).unwrap();
        settings.capacities.frontends = 2 * SERVICES;
        let datapath = Datapath::open(&settings).unwrap();
        assert_eq!(datapath.observe().unwrap(), tables);
        assert_eq!(fill(&datapath, "FRONTENDS4"), (SERVICES, 2 * SERVICES));
        assert!(!maps.join("FRONTENDS4~old").exists());
    });
}

#[test]
fn clients_that_are_bound_keep_their_backend_when_their_table_grows() {
    let ground = Ground::new("crowd");
    ground.in_netns(|| {
        ip("link set lo up");
        let mut settings = ground.settings();
        settings.capacities.affinity = 1_024;
        let mut datapath = Datapath::open(&settings).unwrap();
        let mut steps: Vec<Step> = (1..=8)
            .map(|n| Step::PutBackend(n, backend(1, n as u8)))
            .collect();
        steps.push(Step::PutRing {
            offset: 0,
            backends: (1..=8).collect(),
        });
        let sticky = abi::Frontend {
            affinity_secs: 60,
            ..frontend(1, 0, 8)
        };
        steps.push(Step::PutFrontend(key4(1), sticky));
        datapath.apply(&steps).unwrap();
        // A client of its own for each number, and the port of the connection.
        let connect = |datapath: &Datapath, client: u8, sport: u16| {
            let mut frame = syn(sport);
            frame[29] = client;
            let ran = datapath.test_run("pod_ingress", &frame, &[], 1).unwrap();
            <[u8; 4]>::try_from(&ran.packet[30..34]).unwrap()
        };
        let clients = 100..140;
        let bound: Vec<_> = clients
            .clone()
            .map(|n| connect(&datapath, n, 2_000))
            .collect();
        let now = bpf::now_secs();
        let fill = datapath.bound_clients(now).unwrap();
        assert_eq!((fill.used, fill.capacity), (40, 1_024));
        assert_eq!(
            datapath.bound_clients(now + 61).unwrap().used,
            0,
            "their time is over"
        );
        let larger = Capacities {
            affinity: 4_096,
            ..settings.capacities
        };
        datapath.grow(&larger).unwrap();
        let fill = datapath.bound_clients(bpf::now_secs()).unwrap();
        assert_eq!((fill.used, fill.capacity), (40, 4_096));
        let again: Vec<_> = clients.map(|n| connect(&datapath, n, 3_000)).collect();
        assert_eq!(again, bound);
    });
}

#[test]
fn ranges_of_clients_are_taken_over() {
    let ground = Ground::new("ranges");
    ground.in_netns(|| {
        let settings = ground.settings();
        let mut datapath = Datapath::open(&settings).unwrap();
        let range = |n: u8| abi::SourceKey::v4(1, [10, n, 0, 0], 16);
        let steps: Vec<Step> = (0..64).map(|n| Step::PutSource(range(n))).collect();
        datapath.apply(&steps).unwrap();
        let more = [Step::PutSource(range(64))];
        assert!(datapath.apply(&more).unwrap_err().source.is_full());
        let before = datapath.observe().unwrap().sources;
        let larger = Capacities {
            sources: 128,
            ..settings.capacities
        };
        datapath.grow(&larger).unwrap();
        assert_eq!(datapath.observe().unwrap().sources, before);
        datapath.apply(&more).unwrap();
        assert_eq!(fill(&datapath, "SOURCES"), (65, 128));
    });
}

/// Where the kernel has no memory for a larger table, and where a link cannot be turned: everything is as it was, and goes
/// on being written.
#[test]
fn a_growth_that_fails_leaves_the_tables_that_were() {
    let ground = Ground::new("no-growth");
    let cgroup = ground.cgroup("gone");
    ground.in_netns(|| {
        ip("link set lo up");
        let mut settings = ground.settings();
        settings.cgroup_root = Some(cgroup.path().to_owned());
        settings.capacities.frontends = SERVICES + 2;
        let mut datapath = Datapath::open(&settings).unwrap();
        let listener = TcpListener::bind("[::]:0").unwrap();
        datapath.apply(&steps(&listener)).unwrap();
        let tables = datapath.observe().unwrap();
        let counted = |datapath: &Datapath| {
            let counters = datapath.counters().unwrap().into_iter();
            let begun = counters.filter(|(counter, _)| *counter == abi::Counter::TcNewFlow);
            begun.map(|(_, value)| value.packets).sum::<u64>()
        };
        for (n, frontends) in [(1, u32::MAX), (2, 4 * SERVICES)] {
            if frontends != u32::MAX {
                fs::remove_dir(cgroup.path()).unwrap();
            }
            let larger = Capacities {
                frontends,
                ..settings.capacities
            };
            datapath.grow(&larger).unwrap_err();
            assert_eq!(datapath.capacities(), &settings.capacities);
            assert_eq!(fill(&datapath, "FRONTENDS4").1, SERVICES + 2);
            // The programs that are pinned read what is written now.
            let late = Step::PutFrontend(key4(SERVICES + n), frontend(1, 0, 1));
            datapath.apply(std::slice::from_ref(&late)).unwrap();
            let mut frame = syn(4_000);
            frame[33] = (SERVICES + n) as u8;
            let before = counted(&datapath);
            datapath.test_run("pod_ingress", &frame, &[], 1).unwrap();
            assert_eq!(counted(&datapath), before + 1);
            let view = Datapath::inspect(&ground.bpffs()).unwrap();
            assert_eq!(
                view.observe().unwrap().frontends.len(),
                tables.frontends.len() + n as usize
            );
        }
    });
}
