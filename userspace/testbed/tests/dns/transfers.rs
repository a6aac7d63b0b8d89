//! Zones that travel between `fairlead dns` and knot: ours to knot under a key, in many messages, and knot's to
//! `secondary`; and from one `fairlead dns` to another, which hears of changes.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_proto::rr::{Name, RecordType};
use testbed::{Node, Process, wait_for};

use crate::differential::ask;
use crate::stage::fairlead;

/// Names of our zone: more than one message of a transfer holds, so that signatures follow one another.
const NAMES: u32 = 5_000;

const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";

const COREFILE: &str = "
ours.example:5300 {
    bind 127.0.0.1
    tsig {
        secret key.example. KEY
        require AXFR IXFR
    }
    transfer {
        to *
    }
    file ours.zone
}
theirs.example:5300 {
    bind 127.0.0.1
    secondary {
        transfer from 127.0.0.1:5301
    }
}
";

const KNOT: &str = r#"
server:
    rundir: "FOLDER"
    listen: 127.0.0.1@5301
database:
    storage: "FOLDER/knot"
log:
  - target: stderr
    any: error
key:
  - id: key.example
    algorithm: hmac-sha256
    secret: KEY
remote:
  - id: fairlead
    address: 127.0.0.1@5300
    key: key.example
acl:
  - id: transfer
    address: 127.0.0.1
    action: transfer
zone:
  - domain: theirs.example
    file: "FOLDER/theirs.zone"
    zonefile-load: whole
    acl: transfer
  - domain: ours.example
    file: "FOLDER/ours-at-knot.zone"
    master: fairlead
"#;

#[test]
fn zones_travel_both_ways() -> Result<()> {
    let node = Node::create()?;
    let folder = node.folder();
    let head = "$TTL 60\n@ SOA ns hm 7 3600 1 1209600 60\n@ NS ns\nns A 192.0.2.53\n";
    let mut ours = head.to_owned();
    for n in 0..NAMES {
        writeln!(ours, "host-{n} A 10.0.{}.{}", n / 256, n % 256)?;
    }
    std::fs::write(folder.join("ours.zone"), ours)?;
    std::fs::write(
        folder.join("theirs.zone"),
        format!("{head}www A 192.0.2.80\n"),
    )?;
    std::fs::write(folder.join("Corefile"), COREFILE.replace("KEY", KEY))?;
    let knot = KNOT.replace("KEY", KEY);
    let knot = knot.replace("FOLDER", &folder.display().to_string());
    std::fs::write(folder.join("knot.conf"), knot)?;
    let place = node.place()?.without_cgroup();
    let mut command = place.command(&fairlead()?)?;
    command.args(["dns", "--conf"]).arg(folder.join("Corefile"));
    let mut ours = Process::start(&mut command, "fairlead dns")?;
    ours.line(Duration::from_secs(20), |line| {
        line.starts_with("listening ")
    })?;
    let mut command = place.command(Path::new("knotd"))?;
    command.arg("-c").arg(folder.join("knot.conf"));
    let _theirs = Process::start(&mut command, "knotd")
        .context("knot is missing: `cargo xtask test` installs it on Debian")?;
    let last = format!("host-{}.ours.example.", NAMES - 1);
    for (port, name, what) in [
        (5301, last.as_str(), "our zone at knot"),
        (5300, "www.theirs.example.", "knot's zone here"),
    ] {
        let name = Name::from_ascii(name)?;
        let socket = node.netns().run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(socket)
        })?;
        wait_for(what, Duration::from_secs(40), || {
            let told = ask(&socket, &name, RecordType::A).ok()?;
            (told.answers.len() == 1).then_some(())
        })?;
    }
    Ok(())
}

const PRIMARY: &str = "
shared.example:5300 {
    bind 127.0.0.1
    transfer {
        to 127.0.0.1:5302
    }
    file shared.zone {
        reload 100ms
    }
}
";

const SECONDARY: &str = "
shared.example:5302 {
    bind 127.0.0.1
    secondary {
        transfer from 127.0.0.1:5300
    }
}
";

/// The refresh time is an hour: what changes arrives by NOTIFY (RFC 1996) or not in this test's time.
#[test]
fn a_secondary_follows_another_of_us() -> Result<()> {
    let node = Node::create()?;
    let folder = node.folder();
    let zone = |serial: u32, last: u8| {
        let text = format!(
            "$TTL 60\n@ SOA ns hm {serial} 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.{last}\n"
        );
        // Whole or not at all, as ConfigMaps change.
        std::fs::write(folder.join("new.zone"), text)?;
        std::fs::rename(folder.join("new.zone"), folder.join("shared.zone"))
    };
    zone(1, 1)?;
    let place = node.place()?.without_cgroup();
    let mut servers = Vec::new();
    for (file, text) in [("Secondary", SECONDARY), ("Primary", PRIMARY)] {
        let file = folder.join(file);
        std::fs::write(&file, text)?;
        let mut command = place.command(&fairlead()?)?;
        command.args(["dns", "--conf"]).arg(&file);
        servers.push(Process::start(&mut command, "fairlead dns")?);
    }
    let socket = node.netns().run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(SocketAddr::from(([127, 0, 0, 1], 5302)))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        anyhow::Ok(socket)
    })?;
    let name = Name::from_ascii("www.shared.example.")?;
    for (serial, last) in [(1, 1), (2, 2), (3, 3)] {
        zone(serial, last)?;
        let expected = format!("www.shared.example. 60 a 192.0.2.{last}");
        wait_for(&expected, Duration::from_secs(30), || {
            let told = ask(&socket, &name, RecordType::A).ok()?;
            told.answers.contains(&expected).then_some(())
        })?;
    }
    Ok(())
}
