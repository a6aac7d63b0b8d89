//! `bench cni`: how long a pod's network takes to make and to take away, beside Debian's bridge and host-local.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::Netns;
use testbed::bpffs::Bpffs;

use crate::figures::{Figure, Figures};

/// Where Debian's package containernetworking-plugins has them.
const PEERS: &str = "/usr/lib/cni";

pub(crate) fn measure(figures: &mut Figures, fairlead: &Path, quick: bool) -> Result<()> {
    let runs = if quick { 20 } else { 200 };
    let id = format!("fl-bench-cni-{}", std::process::id());
    let bpffs = Bpffs::create(&std::env::temp_dir().join(&id))?;
    let node = Netns::create(&id)?;
    let pod = Netns::create(&format!("{id}-pod"))?;
    node.ip("link set lo up")?;
    let settings = bpf::Settings {
        bpffs_root: bpffs.path().join("fairlead"),
        ..bpf::Settings::default()
    };
    let datapath = node.run(|| Ok(bpf::Datapath::open(&settings)?))?;
    let folder = tempfile::tempdir()?;
    let ours = Plugin {
        program: fairlead.to_owned(),
        arguments: &["cni"],
        config: json!({
            "cniVersion": "1.0.0",
            "name": "fairlead",
            "type": "fairlead-cni",
            "stateDir": folder.path().join("state"),
            "nodeFile": folder.path().join("node.json"),
            "bpffsRoot": settings.bpffs_root,
            "ipam": {"ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd10:244::/64"}]]},
        }),
    };
    let peer = Plugin {
        program: PathBuf::from(PEERS).join("bridge"),
        arguments: &[],
        config: json!({
            "cniVersion": "1.0.0",
            "name": "bridge",
            "type": "bridge",
            "bridge": "br0",
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "dataDir": folder.path().join("host-local"),
                "ranges": [[{"subnet": "10.245.0.0/24"}], [{"subnet": "fd10:245::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }),
    };
    let mut taken = [Vec::new(), Vec::new()];
    // Each beside the other, so that what else the machine does meets both.
    for run in 0..=runs {
        for (plugin, taken) in [&ours, &peer].into_iter().zip(&mut taken) {
            let before = Instant::now();
            plugin.run(&node, &pod, "ADD")?;
            let added = before.elapsed();
            plugin.run(&node, &pod, "DEL")?;
            // The first makes the bridge.
            if run > 0 {
                taken.push((added, before.elapsed() - added));
            }
        }
    }
    drop(datapath);
    let [ours, peer] = &taken;
    type Part = fn(&(Duration, Duration)) -> Duration;
    let parts: [(&'static str, Part); 3] = [
        ("ADD", |(add, _)| *add),
        ("DEL", |(_, del)| *del),
        ("ADD and DEL", |(add, del)| *add + *del),
    ];
    for (metric, part) in parts {
        let mut ratios: Vec<f64> = ours
            .iter()
            .zip(peer)
            .map(|(ours, peer)| part(peer).as_secs_f64() / part(ours).as_secs_f64())
            .collect();
        let mut millis: Vec<f64> = ours.iter().map(|it| part(it).as_secs_f64() * 1e3).collect();
        for values in [&mut ratios, &mut millis] {
            values.sort_by(f64::total_cmp);
        }
        let at = |values: &[f64], part: usize| values[values.len() * part / 4];
        let figure = Figure {
            case: "pod".to_owned(),
            metric,
            value: at(&millis, 2),
            unit: "ms",
            peer: Some("bridge's speed"),
            ratio: Some(at(&ratios, 2)),
            ratio_spread: Some((at(&ratios, 1), at(&ratios, 3))),
            runs: ours.len(),
            ..Figure::default()
        };
        figures.add(figure, None);
    }
    Ok(())
}

struct Plugin {
    program: PathBuf,
    arguments: &'static [&'static str],
    config: Value,
}

impl Plugin {
    fn run(&self, node: &Netns, pod: &Netns, operation: &str) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments)
            .env_clear()
            .env("CNI_COMMAND", operation)
            .env("CNI_CONTAINERID", "bench")
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PEERS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = node
            .run(|| Ok(command.spawn()?))
            .with_context(|| format!("start {}", self.program.display()))?;
        let mut stdin = child.stdin.take().context("its stdin")?;
        write!(stdin, "{}", self.config)?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let program = self.program.display();
        ensure!(output.status.success(), "{program} {operation}: {said}");
        Ok(())
    }
}
