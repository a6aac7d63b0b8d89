//! The turns of a Service's life: YAML in, writes and what then stands out, as text.
//!
//! A file in `turns/` is a row of steps. A step begins with `# what happens`, then has YAML documents (applied) or
//! lines `delete KIND NAMESPACE/NAME`, and after a line `=>` what is expected. `UPDATE_EXPECT=1 cargo test -p
//! reconcile` writes what came out in place of what was expected.
#![forbid(unsafe_code)]

mod model;

use std::fmt::Write as _;
use std::path::Path;

use model::Model;
use serde_json::Value;

#[test]
fn turns() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/turns");
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        let played = play(&script);
        if update {
            std::fs::write(&file, &played).unwrap();
        } else {
            let place = file.display();
            for (number, (played, expected)) in played.lines().zip(script.lines()).enumerate() {
                assert_eq!(played, expected, "{place}, line {}", number + 1);
            }
            assert_eq!(
                played.lines().count(),
                script.lines().count(),
                "{place}, lines"
            );
        }
    }
}

/// Plays a script, and writes it down again with what came out.
fn play(script: &str) -> String {
    let mut model = Model::new();
    let mut out = String::new();
    for step in script.split("\n# ") {
        let step = step.strip_prefix("# ").unwrap_or(step);
        let (title, rest) = step.split_once('\n').unwrap();
        let input = rest.split("=>\n").next().unwrap().trim_end();
        let (deletions, yaml): (Vec<&str>, Vec<&str>) =
            input.lines().partition(|line| line.starts_with("delete "));
        for deletion in deletions {
            let mut words = deletion.split(' ').skip(1);
            let kind = words.next().unwrap();
            let (namespace, name) = words.next().unwrap().split_once('/').unwrap();
            model.delete(kind, namespace, name);
        }
        let documents: Vec<Value> = serde_saphyr::from_multiple(&yaml.join("\n")).unwrap();
        documents
            .into_iter()
            .for_each(|document| model.apply(document));
        let writes = model.settle();
        if !out.is_empty() {
            out.push('\n');
        }
        write!(out, "# {title}\n{input}\n=>\n").unwrap();
        writes
            .iter()
            .for_each(|write| writeln!(out, "{write}").unwrap());
        out.push_str(&picture(&model));
    }
    out
}

/// Every slice and Endpoints object, as text.
fn picture(model: &Model) -> String {
    let mut out = String::new();
    for ((kind, _, name), object) in &model.objects {
        match kind.as_str() {
            "EndpointSlice" => picture_slice(&mut out, name, object),
            "Endpoints" => picture_endpoints(&mut out, name, object),
            "ServiceAccount"
            | "ConfigMap"
            | "PersistentVolumeClaim"
            | "PersistentVolume"
            | "VolumeAttributesClass" => writeln!(out, "{kind} {name}").unwrap(),
            _ => {}
        }
    }
    out
}

fn picture_slice(out: &mut String, name: &str, slice: &Value) {
    let family = slice["addressType"].as_str().unwrap();
    writeln!(
        out,
        "EndpointSlice {name} {family}{}",
        ports(&slice["ports"])
    )
    .unwrap();
    let meta = &slice["metadata"];
    writeln!(out, "  of {}{}", owner(meta), pairs(&meta["labels"])).unwrap();
    if let Some(changed) =
        meta["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"].as_str()
    {
        writeln!(out, "  changed {changed}").unwrap();
    }
    for endpoint in slice["endpoints"].as_array().unwrap() {
        let addresses: Vec<&str> = endpoint["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|address| address.as_str().unwrap())
            .collect();
        write!(out, "  {}", addresses.join(",")).unwrap();
        for condition in ["ready", "serving", "terminating"] {
            if endpoint["conditions"][condition] == true {
                write!(out, " {condition}").unwrap();
            }
        }
        for (word, field) in [("on", "nodeName"), ("in", "zone"), ("named", "hostname")] {
            if let Some(text) = endpoint[field].as_str() {
                write!(out, " {word} {text}").unwrap();
            }
        }
        writeln!(out, "{}", target(&endpoint["targetRef"])).unwrap();
    }
}

fn picture_endpoints(out: &mut String, name: &str, endpoints: &Value) {
    let meta = &endpoints["metadata"];
    let capacity = match meta["annotations"]["endpoints.kubernetes.io/over-capacity"].as_str() {
        Some(capacity) => format!(" ({capacity})"),
        None => String::new(),
    };
    writeln!(out, "Endpoints {name}{capacity}{}", pairs(&meta["labels"])).unwrap();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        writeln!(out, "  subset{}", ports(&subset["ports"])).unwrap();
        for (list, word) in [("addresses", ""), ("notReadyAddresses", " not ready")] {
            for address in subset[list].as_array().into_iter().flatten() {
                let ip = address["ip"].as_str().unwrap();
                writeln!(out, "    {ip}{word}{}", target(&address["targetRef"])).unwrap();
            }
        }
    }
}

fn ports(ports: &Value) -> String {
    let mut out = String::new();
    for port in ports.as_array().into_iter().flatten() {
        let text = |field: &str| port[field].as_str().unwrap_or("?");
        write!(
            out,
            " {}:{}/{}",
            port["name"].as_str().unwrap_or(""),
            text("protocol"),
            port["port"]
        )
        .unwrap();
        if let Some(app) = port["appProtocol"].as_str() {
            write!(out, "({app})").unwrap();
        }
    }
    out
}

fn owner(meta: &Value) -> String {
    let owner = &meta["ownerReferences"][0];
    match owner["name"].as_str() {
        Some(name) => format!("{} {name}", owner["kind"].as_str().unwrap()),
        None => "nobody".to_owned(),
    }
}

fn target(reference: &Value) -> String {
    match reference["name"].as_str() {
        Some(name) => format!(" = {} {name}", reference["kind"].as_str().unwrap()),
        None => String::new(),
    }
}

fn pairs(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    // Those that every object of ours has say nothing.
    let told = labels.filter(|(key, _)| {
        ![
            "kubernetes.io/service-name",
            "endpoints.kubernetes.io/managed-by",
        ]
        .contains(&key.as_str())
    });
    let short = |key: &str| key.rsplit('/').next().unwrap().to_owned();
    let told: Vec<String> = told
        .map(|(key, value)| format!("{}={}", short(key), value.as_str().unwrap()))
        .collect();
    if told.is_empty() {
        String::new()
    } else {
        format!(" labels {}", told.join(","))
    }
}
