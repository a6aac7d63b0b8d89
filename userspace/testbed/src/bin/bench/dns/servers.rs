//! The servers: ours on the cluster, the peers on files with the same records.

use std::fmt::Write as _;
use std::fs::File;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use testbed::{Place, Process};

/// What is served, and where.
pub(crate) struct Served<'a> {
    pub(crate) place: &'a Place,
    pub(crate) folder: &'a Path,
    pub(crate) fairlead: &'a Path,
    pub(crate) kubeconfig: &'a Path,
    /// Names and addresses.
    pub(crate) services: &'a [(String, String)],
}

/// A running server.
pub(crate) struct Server {
    name: &'static str,
    port: u16,
    process: Process,
}

impl Server {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        self.process.terminate(Duration::from_secs(10))?;
        Ok(())
    }
}

/// Returns when the name of a Service is answered with an address at a port. Call it in the servers' namespace.
pub(crate) fn until_answering(port: u16, service: &str, limit: Duration) -> Result<()> {
    let until = Instant::now() + limit;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    // A refused port says so at once, so this is how long a query may be lost.
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    socket.connect(("127.0.0.1", port))?;
    let question = question(&format!("{service}.default.svc.cluster.local"));
    let mut answer = [0; 512];
    while Instant::now() < until {
        let asked = socket
            .send(&question)
            .and_then(|_| socket.recv(&mut answer));
        // NOERROR with an answer.
        if asked.is_ok() && answer[3] & 15 == 0 && answer[7] > 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("port {port} does not answer {service} within {limit:?}")
}

/// A query for A records.
pub(crate) fn question(name: &str) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        octets.push(label.len() as u8);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.extend_from_slice(&[0, 0, 1, 0, 1]);
    octets
}

/// `fairlead dns` with what a cluster's Corefile holds.
pub(crate) fn fairlead(served: &Served<'_>) -> Result<Server> {
    const PORT: u16 = 5300;
    let corefile = served.folder.join("Corefile");
    let text = ".:5300 {\n    bind 127.0.0.1\n    errors\n    health 127.0.0.1:8080\n    ready 127.0.0.1:8181\n    \
                kubernetes cluster.local in-addr.arpa ip6.arpa {\n        pods insecure\n        ttl 30\n    }\n    \
                prometheus 127.0.0.1:9153\n    cache 30\n    loop\n    reload\n    loadbalance\n}\n";
    std::fs::write(&corefile, text)?;
    let mut command = served.place.command(served.fairlead)?;
    command.args(["dns", "--conf"]).arg(&corefile);
    command.arg("--kubeconfig").arg(served.kubeconfig);
    command.stderr(log(served, "fairlead-dns")?);
    Ok(Server {
        name: "fairlead",
        port: PORT,
        process: Process::start(&mut command, "fairlead dns")?,
    })
}

/// knot, with a thread for each CPU.
pub(crate) fn knot(served: &Served<'_>) -> Result<Server> {
    const PORT: u16 = 5301;
    let folder = served.folder.display();
    let mut text = format!(
        "server:\n    rundir: \"{folder}\"\n    listen: 127.0.0.1@{PORT}\n    udp-workers: {}\n\
         database:\n    storage: \"{folder}/knot\"\nlog:\n  - target: stderr\n    any: error\nzone:\n",
        cpus()
    );
    for (zone, file) in zones(served)? {
        let _ = write!(
            text,
            "  - domain: {zone}\n    file: \"{file}\"\n    zonefile-load: whole\n"
        );
    }
    let conf = served.folder.join("knot.conf");
    std::fs::write(&conf, text)?;
    let mut command = served.place.command(Path::new("knotd"))?;
    command.arg("-c").arg(&conf);
    command.stderr(log(served, "knot")?);
    Ok(Server {
        name: "knot",
        port: PORT,
        process: Process::start(&mut command, "knotd")?,
    })
}

/// nsd, with a process for each CPU. Its limit of answers of one kind (200 a second, the rest is lost) is off, as knot's.
pub(crate) fn nsd(served: &Served<'_>) -> Result<Server> {
    const PORT: u16 = 5302;
    let folder = served.folder.display();
    let mut text = format!(
        "server:\n  ip-address: 127.0.0.1@{PORT}\n  reuseport: yes\n  server-count: {}\n  rrl-ratelimit: 0\n  username: \"\"\n  \
         zonesdir: \"{folder}\"\n  database: \"\"\n  pidfile: \"{folder}/nsd.pid\"\n  \
         zonelistfile: \"{folder}/nsd.list\"\n  xfrdfile: \"{folder}/nsd.xfrd\"\n  xfrdir: \"{folder}\"\n\
         remote-control:\n  control-enable: no\n",
        cpus()
    );
    for (zone, file) in zones(served)? {
        let _ = write!(text, "zone:\n  name: {zone}\n  zonefile: \"{file}\"\n");
    }
    let conf = served.folder.join("nsd.conf");
    std::fs::write(&conf, text)?;
    let mut command = served.place.command(Path::new("nsd"))?;
    command.arg("-d").arg("-c").arg(&conf);
    command.stderr(log(served, "nsd")?);
    Ok(Server {
        name: "nsd",
        port: PORT,
        process: Process::start(&mut command, "nsd")?,
    })
}

/// Where a server logs, so that the terminal has nothing but figures.
fn log(served: &Served<'_>, name: &str) -> Result<File> {
    Ok(File::create(served.folder.join(format!("{name}.log")))?)
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Writes the zones' files; gives names and files.
fn zones(served: &Served<'_>) -> Result<[(&'static str, String); 2]> {
    let head = "$TTL 30\n@ SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 30\n\
                @ NS ns.dns.cluster.local.\n";
    let mut forward = format!("$ORIGIN cluster.local.\n{head}ns.dns A 10.96.0.10\n");
    let mut reverse = format!("$ORIGIN 10.in-addr.arpa.\n{head}");
    for (name, address) in served.services {
        let _ = writeln!(forward, "{name}.default.svc A {address}");
        let _ = writeln!(
            forward,
            "_http._tcp.{name}.default.svc SRV 0 100 80 {name}.default.svc"
        );
        let octets: Vec<&str> = address.split('.').collect();
        if let [_, b, c, d] = octets.as_slice() {
            let _ = writeln!(reverse, "{d}.{c}.{b} PTR {name}.default.svc.cluster.local.");
        }
    }
    let write = |file: &str, text: &str| -> Result<String> {
        let path = served.folder.join(file);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    Ok([
        ("cluster.local", write("cluster.zone", &forward)?),
        ("10.in-addr.arpa", write("reverse.zone", &reverse)?),
    ])
}
