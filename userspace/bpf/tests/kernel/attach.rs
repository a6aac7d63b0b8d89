//! What the programs hang on.

use std::collections::BTreeSet;

use bpf::{Datapath, Error, Place, XdpMode};

use crate::ground::{self, Ground, describe, ip};

#[test]
fn socket_programs_follow_the_cgroup_that_is_configured() {
    let ground = Ground::new("cgroup");
    let other = ground.cgroup("other");
    let cgroups = |datapath: &Datapath| -> Vec<_> {
        let links = datapath.status().unwrap().links;
        links
            .into_iter()
            .map(|link| match link.on {
                Place::Cgroup { path, .. } => path,
                on => panic!("{on:?} is no cgroup"),
            })
            .collect()
    };
    let mut settings = ground.settings();
    let datapath = Datapath::open(&settings).unwrap();
    assert_eq!(cgroups(&datapath), vec![settings.cgroup_root.clone(); 9]);
    drop(datapath);

    settings.cgroup_root = Some(other.path().to_owned());
    let datapath = Datapath::open(&settings).unwrap();
    assert_eq!(cgroups(&datapath), vec![settings.cgroup_root.clone(); 9]);
    drop(datapath);

    settings.cgroup_root = None;
    let datapath = Datapath::open(&settings).unwrap();
    assert_eq!(cgroups(&datapath), vec![]);
}

#[test]
fn xdp_is_attached_as_asked_and_reported() {
    let ground = Ground::new("xdp");
    ground.in_netns(|| {
        ip("link add node0 type veth peer name out0");
        // A bridge knows no native XDP.
        ip("link add br0 type bridge");
        let mut datapath = Datapath::open(&ground.settings()).unwrap();
        let hooks = |datapath: &Datapath, device: &str| -> Vec<&'static str> {
            let links = datapath.status().unwrap().links;
            let on = |link: &bpf::LinkStatus| {
                matches!(&link.on, Place::Device { name, .. } if name == device)
            };
            links.iter().filter(|link| on(link)).map(|link| link.hook).collect()
        };
        let tc = ["tcx_egress", "tcx_ingress"];
        for (mode, expected) in [
            (XdpMode::Auto, XdpMode::Native),
            (XdpMode::Generic, XdpMode::Generic),
            (XdpMode::Native, XdpMode::Native),
            (XdpMode::Auto, XdpMode::Native),
            (XdpMode::Off, XdpMode::Off),
        ] {
            let report = datapath.attach_device("node0", mode).unwrap();
            assert_eq!((report.xdp, report.tcx), (expected, true), "{mode}");
            assert_eq!(report.native_refused, None);
            let mut wanted = tc.to_vec();
            match expected {
                XdpMode::Native => wanted.push("xdp_native"),
                XdpMode::Generic => wanted.push("xdp_generic"),
                XdpMode::Off | XdpMode::Auto => {}
            }
            assert_eq!(hooks(&datapath, "node0"), wanted, "{mode}");
        }
        let report = datapath.attach_device("br0", XdpMode::Auto).unwrap();
        assert_eq!(report.xdp, XdpMode::Generic);
        assert!(report.native_refused.is_some(), "{report:?}");
        let report = datapath.attach_device("br0", XdpMode::Auto).unwrap();
        assert_eq!(report.xdp, XdpMode::Generic, "kept as it is");
        datapath.attach_device("br0", XdpMode::Native).unwrap_err();
        assert_eq!(hooks(&datapath, "br0"), tc, "what hung there goes on");

        // What was asked for in vain leaves nothing.
        ip("link add br1 type bridge");
        let told = used(&datapath, "DEVICES");
        datapath.attach_device("br1", XdpMode::Native).unwrap_err();
        assert_eq!(hooks(&datapath, "br1"), [""; 0]);
        assert_eq!(used(&datapath, "DEVICES"), told);

        let node0 = ground::ifindex("node0");
        datapath.detach(node0).unwrap();
        assert_eq!(hooks(&datapath, "node0"), [""; 0]);
    });
}

/// Elements of the table.
fn used(datapath: &Datapath, table: &str) -> u32 {
    let tables = datapath.status().unwrap().tables;
    let of = tables.iter().find(|fill| fill.table == table);
    of.unwrap_or_else(|| panic!("{table} is no table")).used
}

#[test]
fn a_foreign_xdp_program_is_named_and_left_alone() {
    let ground = Ground::new("foreign");
    let stranger = Ground::new("stranger");
    ground.in_netns(|| {
        ip("link add node0 type veth peer name out0");
        let mut foreign = Datapath::open(&stranger.settings()).unwrap();
        foreign.attach_device("node0", XdpMode::Native).unwrap();
        let id = foreign
            .status()
            .unwrap()
            .links
            .iter()
            .find(|link| link.hook == "xdp_native")
            .map(|link| link.program_id)
            .unwrap();

        let mut datapath = Datapath::open(&ground.settings()).unwrap();
        for mode in [XdpMode::Auto, XdpMode::Native, XdpMode::Generic] {
            let error = datapath.attach_device("node0", mode).unwrap_err();
            assert!(matches!(error, Error::ForeignXdp { .. }), "{error:?}");
            let text = describe(&error);
            for part in [
                "node0",
                &format!("id {id}"),
                "device_xdp",
                "in native mode",
                "bpftool link detach id",
            ] {
                assert!(text.contains(part), "{text} lacks {part}");
            }
            assert_eq!(datapath.attached().unwrap(), BTreeSet::new(), "{mode}");
            assert_eq!(used(&datapath, "DEVICES"), 0, "{mode}");
        }
        let program = stranger.bpffs().join("v1/programs/device_xdp");
        let by_hand = format!("link set out0 xdpgeneric pinned {}", program.display());
        ip(&by_hand);
        let error = datapath.attach_device("out0", XdpMode::Auto).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`ip link set dev out0 xdpgeneric off`"),
            "{error}"
        );

        // TC lives beside others, and XDP can be declined.
        let report = datapath.attach_device("node0", XdpMode::Off).unwrap();
        assert_eq!(report.xdp, XdpMode::Off);
        let still = foreign.status().unwrap().links;
        assert!(still.iter().any(|link| link.program_id == id), "{still:#?}");
    });
}

#[test]
fn tc_filters_serve_where_tcx_is_not_wanted() {
    let ground = Ground::new("clsact");
    ground.in_netns(|| {
        ip("link add pod0 type veth peer name eth0");
        let pod0 = ground::ifindex("pod0");
        let mut settings = ground.settings();
        settings.tcx = false;
        let filters = || ground::output("tc", "filter show dev pod0 ingress");
        let mut datapath = Datapath::open(&settings).unwrap();
        assert!(!datapath.attach_pod(pod0).unwrap().tcx);
        assert_eq!(
            filters().matches("pod_ingress direct-action").count(),
            1,
            "{}",
            filters()
        );
        let first = datapath.status().unwrap().links;
        drop(datapath);
        assert_eq!(
            filters().matches("pod_ingress direct-action").count(),
            1,
            "outlives the agent"
        );

        let datapath = Datapath::open(&settings).unwrap();
        assert_eq!(
            filters().matches("pod_ingress direct-action").count(),
            1,
            "{}",
            filters()
        );
        let second = datapath.status().unwrap().links;
        let clsact = |links: &[bpf::LinkStatus]| -> Vec<_> {
            let links = links.iter().filter(|link| link.hook.starts_with("clsact"));
            links
                .map(|link| (link.program.clone(), link.program_id))
                .collect()
        };
        let (first, second) = (clsact(&first), clsact(&second));
        assert_eq!((first.len(), second.len()), (2, 2));
        for (old, new) in first.iter().zip(&second) {
            assert_eq!(old.0, new.0);
            assert_ne!(old.1, new.1);
            if new.0 == "pod_ingress" {
                assert!(
                    filters().contains(&format!(" id {} ", new.1)),
                    "{}",
                    filters()
                );
            }
        }
        drop(datapath);

        // Changing over to TCX leaves no filter behind.
        settings.tcx = true;
        let mut datapath = Datapath::open(&settings).unwrap();
        assert!(datapath.attach_pod(pod0).unwrap().tcx);
        assert!(!filters().contains("pod_ingress"), "{}", filters());
        datapath.detach_all().unwrap();
    });
}

#[test]
fn devices_that_are_not_there_are_named() {
    let ground = Ground::new("nodev");
    ground.in_netns(|| {
        let mut datapath = Datapath::open(&ground.settings()).unwrap();
        let error = datapath.attach_device("nope0", XdpMode::Auto).unwrap_err();
        assert!(
            matches!(&error, Error::NoDevice { device } if device == "nope0"),
            "{error}"
        );
        let error = datapath.attach_pod(4_711).unwrap_err();
        assert!(error.to_string().contains("4711"), "{error}");
    });
}

#[test]
fn a_device_that_went_away_is_forgotten() {
    let ground = Ground::new("gone");
    ground.in_netns(|| {
        ip("link add pod0 type veth peer name eth0");
        ip("link add pod1 type veth peer name eth1");
        let (pod0, pod1) = (ground::ifindex("pod0"), ground::ifindex("pod1"));
        let mut datapath = Datapath::open(&ground.settings()).unwrap();
        datapath.attach_pod(pod0).unwrap();
        datapath.attach_pod(pod1).unwrap();
        assert_eq!(datapath.attached().unwrap(), [pod0, pod1].into());
        ip("link del pod0");
        let gone = Place::Gone {
            was: "pod0".to_owned(),
        };
        let links = datapath.status().unwrap().links;
        assert_eq!(
            links.iter().filter(|link| link.on == gone).count(),
            2,
            "{links:#?}"
        );
        datapath.detach(pod0).unwrap();
        assert_eq!(datapath.attached().unwrap(), [pod1].into());

        ip("link set pod1 name pod.7");
        let before = datapath.status().unwrap().links;
        datapath.attach_pod(pod1).unwrap();
        for (old, new) in before.iter().zip(datapath.status().unwrap().links) {
            assert_eq!(old.id, new.id);
            if let Place::Device { name, .. } = &new.on {
                assert_eq!(name, "pod.7", "renamed, and still the same link");
            }
        }

        ip("link del pod.7");
        drop(datapath);
        let datapath = Datapath::open(&ground.settings()).unwrap();
        assert_eq!(datapath.attached().unwrap(), [].into());
    });
}
