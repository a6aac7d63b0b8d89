//! From the first start to the removal: restarts, ownership, what must be there before.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;

use abi::Counter;
use bpf::{Datapath, Error, XdpMode};
use plan::{Step, Store};
use rustix::thread::CapabilitySet;

use crate::ground::{self, Ground, ip};
use crate::samples::{backend, frontend, key4, service};

#[test]
fn a_restart_keeps_tables_and_links_and_replaces_programs() {
    let ground = Ground::new("restart");
    ground.in_netns(|| {
        ip("link add node.0 type veth peer name out0");
        ip("link add pod0 type veth peer name eth.0");
        ip("link set node.0 up");
        let pod = ground::ifindex("pod0");
        let mut first = Datapath::open(&ground.settings()).unwrap();
        first.apply(&service(key4(1), 1, 2)).unwrap();
        first.attach_device("node.0", XdpMode::Native).unwrap();
        first.attach_pod(pod).unwrap();
        let before = first.status().unwrap();
        let tables = first.observe().unwrap();
        drop(first);

        // Nothing of ours runs: what is pinned still says the same, to another process too.
        let view = Datapath::inspect(&ground.bpffs()).unwrap();
        assert_eq!(view.observe().unwrap(), tables);
        assert_eq!(view.status().unwrap().links, before.links);
        assert_eq!(view.status().unwrap().agent_pid, None);

        let second = Datapath::open(&ground.settings()).unwrap();
        let after = second.status().unwrap();
        assert_eq!(second.observe().unwrap(), tables);
        assert_eq!(after.agent_pid, Some(std::process::id()));
        assert_eq!(after.links.len(), 9 + 3 + 2, "{after:#?}");
        for (old, new) in before.links.iter().zip(&after.links) {
            assert_eq!((old.id, old.hook, &old.on), (new.id, new.hook, &new.on));
            assert_eq!(old.program, new.program);
            assert_ne!(old.program_id, new.program_id, "{} is new", new.program);
        }
        let programs: BTreeMap<_, _> = after
            .programs
            .iter()
            .map(|program| (program.name.clone(), program.id))
            .collect();
        assert_eq!(programs.len(), 17);
        for link in &after.links {
            assert_eq!(programs[&link.program], link.program_id);
        }
        assert!(
            after
                .programs
                .iter()
                .all(|program| program.verified_instructions > 0),
            "{:#?}",
            after.programs
        );
    });
}

#[test]
fn a_connect_in_the_cgroup_reaches_the_backend_also_without_the_agent() {
    let ground = Ground::new("connect");
    ground.in_netns(|| {
        ip("link set lo up");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // The client may have gone; then it fails the test, not we.
                let _ = stream.and_then(|mut stream| stream.write_all(b"hello"));
            }
        });
        let mut local = backend(1, 1);
        local.addr[..4].copy_from_slice(&[127, 0, 0, 1]);
        local.port = port.into();
        let mut datapath = Datapath::open(&ground.settings()).unwrap();
        let steps = [
            Step::PutBackend(1, local),
            Step::PutRing {
                offset: 0,
                backends: vec![1],
            },
            Step::PutFrontend(key4(1), frontend(1, 0, 1)),
            Step::PutFrontend(key4(2), frontend(2, 0, 0)),
        ];
        datapath.apply(&steps).unwrap();
        let hello = Ok("hello".to_owned());
        assert_eq!(ground.connect("10.0.0.1", 80), hello);
        let refused = ground.connect("10.0.0.2", 80).unwrap_err();
        assert!(refused.contains("Connection refused"), "{refused}");
        drop(datapath);
        assert_eq!(ground.connect("10.0.0.1", 80), hello, "the agent is gone");
        let datapath = Datapath::open(&ground.settings()).unwrap();
        assert_eq!(
            ground.connect("10.0.0.1", 80),
            hello,
            "another agent is there"
        );
        let counted = datapath.counters().unwrap();
        let of = |wanted| {
            counted
                .iter()
                .find(|(counter, _)| *counter == wanted)
                .unwrap()
                .1
        };
        assert_eq!(of(Counter::SocketConnect).packets, 3, "{counted:?}");
        assert_eq!(of(Counter::SocketNoEndpoint).packets, 1, "{counted:?}");
        datapath.detach_all().unwrap();
        ground.connect("10.0.0.1", 80).unwrap_err();
    });
}

#[test]
fn one_agent_owns_a_root() {
    let ground = Ground::new("owner");
    let first = Datapath::open(&ground.settings()).unwrap();
    let error = Datapath::open(&ground.settings()).unwrap_err();
    let me = std::process::id();
    assert!(
        matches!(&error, Error::Owned { pid: Some(pid), .. } if *pid == me),
        "{error:?}"
    );
    assert!(
        error.to_string().contains(ground.bpffs().to_str().unwrap()),
        "{error}"
    );
    let error = Datapath::uninstall(&ground.bpffs()).unwrap_err();
    assert!(matches!(error, Error::Owned { .. }), "{error}");
    drop(first);
    Datapath::open(&ground.settings()).unwrap();
}

#[test]
fn what_is_missing_is_named() {
    let ground = Ground::new("missing");
    let plain = tempfile::tempdir().unwrap();
    let mut settings = ground.settings();
    settings.bpffs_root = plain.path().join("fairlead");
    let error = Datapath::open(&settings).unwrap_err();
    assert!(matches!(error, Error::NoBpffs { .. }), "{error:?}");
    assert!(error.to_string().contains("mount -t bpf bpf"), "{error}");

    let error = Datapath::inspect(&ground.bpffs()).unwrap_err();
    assert!(matches!(error, Error::NotLoaded { .. }), "{error:?}");

    for path in [plain.path().to_owned(), "/not/there".into()] {
        let mut settings = ground.settings();
        settings.cgroup_root = Some(path.clone());
        let error = Datapath::open(&settings).unwrap_err();
        assert!(matches!(error, Error::NoCgroup { .. }), "{error:?}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_process_without_capabilities_is_told_which() {
    let ground = Ground::new("caps");
    let settings = ground.settings();
    // A thread of its own, because capabilities belong to threads.
    let refused = std::thread::spawn(move || {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective -= CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
        rustix::thread::set_capabilities(None, sets).unwrap();
        Datapath::open(&settings).map(drop)
    });
    let error = refused.join().unwrap().unwrap_err().to_string();
    assert!(
        error.starts_with("CAP_NET_ADMIN, CAP_BPF missing: run as root"),
        "{error}"
    );
}

#[test]
fn nothing_is_left_after_an_uninstall() {
    let ground = Ground::new("uninstall");
    ground.in_netns(|| {
        ip("link add node0 type veth peer name out0");
        let mut datapath = Datapath::open(&ground.settings()).unwrap();
        datapath.attach_device("node0", XdpMode::Native).unwrap();
        assert!(ground::output("ip", "link show node0").contains("xdp"));
        datapath.detach_all().unwrap();
        assert!(!ground::output("ip", "link show node0").contains("xdp"));
        assert!(!ground.bpffs().join("v1").exists());
        Datapath::uninstall(&ground.bpffs()).unwrap();
    });
}

#[test]
fn a_packet_can_be_run_through_a_program() {
    let ground = Ground::new("testrun");
    let datapath = Datapath::open(&ground.settings()).unwrap();
    // Ethernet, with a type that no service has.
    let mut packet = vec![0; 64];
    packet[12..14].copy_from_slice(&[0x88, 0xb5]);
    for (program, pass) in [
        ("device_xdp", [2, 2]),
        // TC_ACT_OK, or TCX_NEXT.
        ("pod_ingress", [0, u32::MAX]),
        ("device_egress", [0, u32::MAX]),
    ] {
        let run = datapath.test_run(program, &packet, &[], 10).unwrap();
        assert!(pass.contains(&run.verdict), "{program}: {}", run.verdict);
        assert_eq!(run.packet, packet, "{program}");
    }
    datapath.test_run("not_there", &packet, &[], 1).unwrap_err();
}
