//! Kubernetes YAML in, table contents out, through every turn of a service's life.
//!
//! Each file in `life/` is a script. A line that begins with `--` is a command, and what follows is its body:
//!
//! ```text
//! -- proxy NODE [ADDRESS ..]   starts a proxy on an empty kernel; the addresses are its devices'
//! -- restarted | synced        what a watch says before and after a list, for all three resources
//! -- apply                     the body's objects are so now
//! -- delete KIND NAMESPACE/NAME
//! -- steps                     plans and applies; the body is what was done
//! -- tables                    the same; the body is what the kernel holds then
//! -- troubles                  the body is what is not served in full, and why
//! -- reclaim                   the grace period is over
//! -- release                   the time to forget identifiers is over
//! -- restart                   the process ends and starts anew on the same kernel
//! ```
//!
//! Between any two steps every frontend must be whole. `FAIRLEAD_REFRESH=1` rewrites the bodies.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use plan::{Capacities, Named, Step, Store, Tables};
use proxy::Balancer;
use view::{Event, Services, objects};

#[test]
fn scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/life");
    let refresh = std::env::var_os("FAIRLEAD_REFRESH").is_some();
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = String::new();
    for file in files {
        let script = fs::read_to_string(&file).unwrap();
        let played = play(&script);
        if refresh {
            fs::write(&file, played).unwrap();
        } else if played != script {
            let pairs = script.lines().zip(played.lines()).enumerate();
            let first = pairs
                .filter(|(_, (a, b))| a != b)
                .map(|(n, _)| n + 1)
                .next();
            let name = file.file_name().unwrap().to_string_lossy();
            writeln!(
                wrong,
                "{name} differs from line {first:?} on; it played:\n{played}"
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Plays a script and gives it back with the bodies that it should have.
fn play(script: &str) -> String {
    let mut played = String::new();
    let mut world = World::start(&[]);
    for (command, body) in sections(script) {
        played += command;
        let words: Vec<&str> = command.trim_start_matches('-').split_whitespace().collect();
        match words.as_slice() {
            [] => played += body,
            ["proxy", args @ ..] => {
                world = World::start(args);
                played += body;
            }
            ["restarted"] => world.all(
                || Event::Restarted,
                || Event::Restarted,
                || Event::Restarted,
            ),
            ["synced"] => world.all(|| Event::Synced, || Event::Synced, || Event::Synced),
            ["apply"] => {
                world.apply(body);
                played += body;
            }
            ["delete", kind, name] => {
                world.delete(kind, name);
                played += body;
            }
            ["steps"] => played += &section_of(&world.turn()),
            ["tables"] => {
                world.turn();
                played += &section_of(&world.kernel.to_string());
            }
            ["troubles"] => {
                world.turn();
                played += &section_of(&world.troubles());
            }
            ["reclaim"] => world.reclaim(),
            ["release"] => world.release(),
            ["restart"] => world.restart(),
            other => panic!("no command {other:?}"),
        }
        if matches!(
            words.as_slice(),
            ["restarted" | "synced" | "reclaim" | "release" | "restart"]
        ) {
            played += body;
        }
    }
    played
}

/// Command lines with their bodies; before the first command there may be a comment.
fn sections(script: &str) -> Vec<(&str, &str)> {
    let mut starts: Vec<usize> = vec![0];
    starts.extend(script.match_indices("\n-- ").map(|(at, _)| at + 1));
    starts.push(script.len());
    let section = |bounds: &[usize]| {
        let text = &script[bounds[0]..bounds[1]];
        if text.starts_with("-- ") {
            text.split_at(text.find('\n').map_or(text.len(), |at| at + 1))
        } else {
            ("", text)
        }
    };
    starts.windows(2).map(section).collect()
}

/// A body with an empty line behind.
fn section_of(text: &str) -> String {
    format!("{text}\n")
}

struct World {
    node: String,
    given: Vec<std::net::IpAddr>,
    balancer: Balancer,
    kernel: Tables,
}

impl World {
    fn start(args: &[&str]) -> Self {
        let (node, given) = args.split_first().unwrap_or((&"", &[]));
        let given: Vec<_> = given.iter().map(|addr| addr.parse().unwrap()).collect();
        World {
            balancer: balancer(node, &given, &Tables::default()),
            node: (*node).to_owned(),
            given,
            kernel: Tables::default(),
        }
    }

    fn restart(&mut self) {
        self.balancer = balancer(&self.node, &self.given, &self.kernel);
    }

    fn all(
        &mut self,
        service: impl Fn() -> Event<objects::Service>,
        slice: impl Fn() -> Event<objects::EndpointSlice>,
        node: impl Fn() -> Event<objects::Node>,
    ) {
        self.balancer.service(service());
        self.balancer.slice(slice());
        self.balancer.node(node());
    }

    fn apply(&mut self, yaml: &str) {
        for document in yaml.split("\n---\n").filter(|text| !text.trim().is_empty()) {
            let object: serde_json::Value = serde_saphyr::from_str(document).unwrap();
            match object["kind"].as_str().unwrap() {
                "Service" => self.balancer.service(Event::Applied(view(object))),
                "EndpointSlice" => self.balancer.slice(Event::Applied(view(object))),
                "Node" => self.balancer.node(Event::Applied(view(object))),
                "Pod" => self.balancer.pod(Event::Applied(view(object))),
                other => panic!("no kind {other:?}"),
            }
        }
    }

    fn delete(&mut self, kind: &str, name: &str) {
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        match kind {
            "Service" => self.balancer.service(Event::Deleted { namespace, name }),
            "EndpointSlice" => self.balancer.slice(Event::Deleted { namespace, name }),
            "Node" => self.balancer.node(Event::Deleted { namespace, name }),
            "Pod" => self.balancer.pod(Event::Deleted { namespace, name }),
            other => panic!("no kind {other:?}"),
        }
    }

    fn turn(&mut self) -> String {
        let steps = self.balancer.turn().steps;
        self.carry_out(&steps);
        steps
            .iter()
            .fold(String::new(), |text, step| format!("{text}{step}\n"))
    }

    fn reclaim(&mut self) {
        let epoch = self.balancer.planner().epoch();
        let steps = self.balancer.planner_mut().reclaim(epoch);
        self.carry_out(&steps);
    }

    fn release(&mut self) {
        let epoch = self.balancer.planner().epoch();
        self.balancer.planner_mut().release(epoch);
    }

    fn carry_out(&mut self, steps: &[Step]) {
        for step in steps {
            self.kernel.apply(std::slice::from_ref(step)).unwrap();
            for (key, frontend) in &self.kernel.frontends {
                let slots = frontend.ring_offset..frontend.ring_offset + frontend.ring_len;
                for slot in slots {
                    let backend = self.kernel.rings.get(&slot);
                    let backend = backend.and_then(|id| self.kernel.backends.get(id));
                    assert_eq!(
                        backend.map(|backend| backend.service),
                        Some(frontend.service),
                        "{key} is not whole after {step}\n{}",
                        self.kernel
                    );
                }
            }
        }
    }

    fn troubles(&self) -> String {
        let mut text = String::new();
        for (key, troubles) in self.balancer.troubles() {
            for trouble in troubles {
                writeln!(text, "{key}: {trouble}").unwrap();
            }
        }
        text
    }
}

fn balancer(node: &str, given: &[std::net::IpAddr], kernel: &Tables) -> Balancer {
    let capacities = Capacities {
        frontends4: 12,
        frontends6: 12,
        rings: 24,
        backends: 24,
        sources: 4,
        spreads: 1_000,
    };
    let services = Services::new(node, given.to_vec());
    Balancer::new(services, kernel, capacities, Named::default())
}

fn view<T: serde::de::DeserializeOwned>(object: serde_json::Value) -> T {
    serde_json::from_value(object).unwrap()
}
