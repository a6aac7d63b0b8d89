//! An agent whose layout is another one than that of what is pinned. Layout 0 is this build's own under another name: what
//! a release leaves whose tables were the same; a test says what is different beside that.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use abi::{Flow4, Flow6, FlowState4, FlowState6, Frontend};
use bpf::{Change, Datapath, Flow};
use plan::{Step, Store as _};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::ground::{Ground, ip, output};
use crate::growth::{steps, syn};
use crate::samples::{frontend, key4};

fn flows(datapath: &Datapath) -> Vec<Flow> {
    let mut flows: Vec<Flow> = Vec::new();
    let all = datapath.walk_flows(|some| {
        flows.extend(some);
        true
    });
    all.unwrap();
    flows.sort_by_key(|flow| format!("{flow:?}"));
    flows
}

/// Makes what is pinned that of another layout.
fn rename(ground: &Ground, version: u32) {
    let own = ground.bpffs().join(format!("v{}", abi::LAYOUT_VERSION));
    fs::rename(own, ground.bpffs().join(format!("v{version}"))).unwrap();
}

/// The identifier of the device's XDP program.
fn xdp_program() -> u32 {
    let shown = output("ip", "-d link show dev up0");
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "prog/xdp").unwrap();
    words.nth(1).unwrap().parse().unwrap()
}

#[test]
fn flows_and_affinities_of_the_layout_before_live_on() {
    let ground = Ground::new("layouts");
    ground.in_netns(|| {
        ip("link set lo up");
        ip("link add up0 type veth peer name up1");
        ip("link set up0 up");
        let mut settings = ground.settings();
        settings.capacities.flows = 1_024;
        let mut datapath = Datapath::open(&settings).unwrap();
        datapath
            .attach_device("up0", bpf::XdpMode::Generic)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        datapath.apply(&steps(&listener)).unwrap();
        let sticky = Frontend {
            affinity_secs: 3_600,
            ..frontend(1, 0, 1)
        };
        datapath
            .apply(&[Step::PutFrontend(key4(1), sticky)])
            .unwrap();
        for sport in 1_000..1_100 {
            datapath
                .test_run("pod_ingress", &syn(sport), &[], 1)
                .unwrap();
        }
        let (tables, before) = (datapath.observe().unwrap(), flows(&datapath));
        assert_eq!(before.len(), 200);
        let bound = |datapath: &Datapath| datapath.bound_clients(bpf::now_secs()).unwrap().used;
        assert_eq!(bound(&datapath), 1);
        let xdp = xdp_program();
        let hooked = |datapath: &Datapath| {
            let links = datapath.status().unwrap().links;
            let mut all: Vec<_> = links
                .into_iter()
                .map(|link| (link.hook, link.program))
                .collect();
            all.sort();
            all
        };
        let links = hooked(&datapath);
        drop(datapath);
        rename(&ground, 0);

        // Connections are made all the time, by the old programs and then by the new, and none fails.
        let stop = tempfile::NamedTempFile::new().unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs
             while [ -e {} ]; do exec 3<>/dev/tcp/10.0.0.1/80 || exit 1; done",
            settings.cgroup_root.as_ref().unwrap().display(),
            stop.path().display()
        );
        let mut client = Command::new("bash")
            .args(["-c", &script])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        listener.accept().unwrap();
        let path = stop.path().to_owned();
        let datapath = std::thread::scope(|scope| {
            let accepting = scope.spawn(|| {
                listener.set_nonblocking(true).unwrap();
                while path.exists() {
                    if listener.accept().is_err() {
                        std::thread::yield_now();
                    }
                }
            });
            let datapath = Datapath::open(&settings).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
            drop(stop);
            assert!(client.wait().unwrap().success(), "a connection failed");
            accepting.join().unwrap();
            datapath
        });
        assert_eq!(datapath.inherited().layouts, [0]);
        assert_eq!(datapath.inherited().anew, [""; 0]);
        assert_eq!(
            datapath.observe().unwrap(),
            tables,
            "every identifier stays"
        );
        let after = flows(&datapath);
        assert_eq!(after.len(), before.len());
        assert_eq!(hooked(&datapath), links, "nothing is attached twice");
        assert_eq!(
            Datapath::layouts(&ground.bpffs()).unwrap(),
            [abi::LAYOUT_VERSION].into()
        );
        // A packet of a flow of before finds it, and begins none.
        datapath
            .test_run("pod_ingress", &syn(1_050), &[], 1)
            .unwrap();
        assert_eq!(flows(&datapath).len(), before.len());
        assert_eq!(
            bound(&datapath),
            2,
            "the client of the SYNs, and the process"
        );
        assert_ne!(
            xdp_program(),
            xdp,
            "today's program has taken the place of yesterday's"
        );
    });
}

/// An IPv4 address in the last four octets of an IPv6 one.
fn short(addr: [u8; 16]) -> [u8; 4] {
    [addr[12], addr[13], addr[14], addr[15]]
}

fn flow4(flow: &Flow6) -> Flow4 {
    Flow4 {
        saddr: short(flow.saddr),
        daddr: short(flow.daddr),
        sport: flow.sport,
        dport: flow.dport,
        proto: flow.proto,
        _pad: [0; 3],
    }
}

/// In the layout of this test, the table FLOWS4 had addresses of sixteen octets.
fn convert(key: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let key = Flow6::read_from_bytes(key).ok()?;
    let state = FlowState6::read_from_bytes(value).ok()?;
    let state4 = FlowState4 {
        to: flow4(&state.to),
        service: state.service,
        backend: state.backend,
        last_seen_secs: state.last_seen_secs,
        flags: state.flags,
    };
    Some((flow4(&key).as_bytes().to_vec(), state4.as_bytes().to_vec()))
}

const CHANGES: [Change; 2] = [
    Change {
        version: 1,
        table: abi::flows::NAME4,
        convert: Some(convert),
    },
    Change {
        version: 1,
        table: abi::flows::NAME6,
        convert: None,
    },
];

#[test]
fn a_table_that_changed_is_converted_or_begins_anew_and_is_named() {
    let ground = Ground::new("changed");
    ground.in_netns(|| {
        let settings = ground.settings();
        let datapath = Datapath::open(&settings).unwrap();
        let key = Flow6 {
            saddr: [7; 16],
            daddr: [8; 16],
            sport: 4_000.into(),
            dport: 80.into(),
            proto: 6,
            _pad: [0; 3],
        };
        let state = FlowState6 {
            to: Flow6 {
                daddr: [9; 16],
                ..key
            },
            service: 3,
            backend: 4,
            last_seen_secs: 5,
            flags: 0,
        };
        bpf::adopt_flows(&ground.bpffs(), &[Flow::V6(key, state)]).unwrap();
        drop(datapath);
        rename(&ground, 0);
        let maps = ground.bpffs().join("v0/maps");
        fs::rename(maps.join(abi::flows::NAME6), maps.join(abi::flows::NAME4)).unwrap();

        // A process that died after it had made the new tables, and before any link turned.
        fs::create_dir_all(ground.bpffs().join("v1/maps")).unwrap();
        let datapath = Datapath::open_over(&settings, &CHANGES).unwrap();
        assert_eq!(datapath.inherited().layouts, [0]);
        assert_eq!(
            datapath.inherited().anew,
            [""; 0],
            "there was no FLOWS6 to lose"
        );
        let (key, state) = convert(key.as_bytes(), state.as_bytes()).unwrap();
        let expected = Flow::V4(
            Flow4::read_from_bytes(&key).unwrap(),
            FlowState4::read_from_bytes(&state).unwrap(),
        );
        assert_eq!(flows(&datapath), [expected]);
        drop(datapath);

        // And one whose layout is newer: its links are ours then, its tables are not.
        rename(&ground, 7);
        let datapath = Datapath::open(&settings).unwrap();
        assert_eq!(datapath.inherited().layouts, [7]);
        assert!(datapath.inherited().anew.contains(&abi::flows::NAME4));
        assert_eq!(flows(&datapath), []);
        assert_eq!(
            Datapath::layouts(&ground.bpffs()).unwrap(),
            [abi::LAYOUT_VERSION].into()
        );
    });
}
