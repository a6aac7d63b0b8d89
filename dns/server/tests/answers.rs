//! Corefiles, questions and the answers they must give, as data: `tests/answers/*.txt`.
//!
//! ```text
//! === name of the case
//! file NAME            a file that the Corefile names, up to the next line that begins with `---`; `cluster` holds
//!                      the objects of an API server, documents divided by lines of `+++`; `node` is the resolv.conf
//!                      of the node
//! ---
//! corefile             the Corefile, up to the next such line
//! ---
//! > NAME TYPE [CLASS] [from ADDRESS] [tcp] [do] [because]    a question
//! CODE [aa] [ra] ...                                        the code and flags of the answer
//! because TEXT                                              what is behind it, where that is asked for
//! record               records, as `[section] name ttl class type data`; sections an, ns, ar; order does not matter
//! ```

mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dns_server::cluster::Clusters;
use dns_server::corefile::Scheme;
use dns_server::instance::Environment;
use dns_server::instance::Instance;
use dns_server::instance::Listen;
use dns_server::message::Outcome;
use dns_server::message::Request;
use dns_server::message::Transport;
use hickory_proto::op::Edns;
use hickory_proto::op::Message;
use hickory_proto::op::Query;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;

struct Case {
    name: String,
    files: Vec<(String, String)>,
    corefile: String,
    questions: Vec<(String, String)>,
}

#[tokio::test]
async fn answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/answers");
    let mut wrong = String::new();
    let mut asked = 0;
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file of cases");
        for case in cases(&text) {
            asked += case.questions.len();
            run(&file.display().to_string(), &case, &mut wrong).await;
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(asked > 80, "only {asked} questions were asked");
}

fn cases(text: &str) -> Vec<Case> {
    text.split("=== ")
        .skip(1)
        .map(|text| {
            let (name, text) = text.split_once('\n').expect("a case has lines");
            let mut case = Case {
                name: name.to_owned(),
                files: Vec::new(),
                corefile: String::new(),
                questions: Vec::new(),
            };
            for part in text.split("---\n") {
                let (head, rest) = part.split_once('\n').unwrap_or((part, ""));
                if let Some(file) = head.strip_prefix("file ") {
                    case.files.push((file.to_owned(), rest.to_owned()));
                } else if head == "corefile" {
                    case.corefile = rest.to_owned();
                } else {
                    for question in part.split("> ").skip(1) {
                        let (question, expected) =
                            question.split_once('\n').expect("a question has an answer");
                        case.questions
                            .push((question.to_owned(), expected.to_owned()));
                    }
                }
            }
            case
        })
        .collect()
}

async fn run(file: &str, case: &Case, wrong: &mut String) {
    let folder = tempfile::tempdir().expect("a folder for the case");
    for (name, text) in &case.files {
        std::fs::write(folder.path().join(name), text).expect("a file of the case");
    }
    let mut environment = Environment::new(53);
    environment.resolv_conf = folder.path().join("node");
    if let Some((_, objects)) = case.files.iter().find(|(name, _)| name == "cluster") {
        let api = common::api(&objects.replace("+++\n", "---\n"));
        environment.clusters = Clusters::new(Some(api));
    }
    let environment = Arc::new(environment);
    let corefile = folder.path().join("Corefile");
    let instance = match Instance::build(&environment, &corefile, &case.corefile) {
        Ok(instance) => Arc::new(instance),
        Err(error) => {
            let _ = writeln!(wrong, "{file}: {}: {error}", case.name);
            return;
        }
    };
    instance
        .bind_http()
        .and_then(|http| instance.start(http))
        .expect("HTTP servers listen");
    let ready = tokio::time::timeout(Duration::from_secs(10), instance.until_ready());
    ready.await.expect("the cluster is heard of");
    for (question, expected) in &case.questions {
        let found = answer(&instance, question).await;
        if sorted(&found) != sorted(expected) {
            let _ = writeln!(
                wrong,
                "{file}: {}\n> {question}\n--- wanted\n{expected}--- found\n{found}",
                case.name
            );
        }
    }
}

/// The first line stays, the records are sorted, comments go.
fn sorted(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut lines: Vec<String> = lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    if lines.len() > 1 {
        lines[1..].sort();
    }
    lines
}

async fn answer(instance: &Arc<Instance>, question: &str) -> String {
    let mut words = question.split_whitespace();
    let name = words.next().expect("a name");
    // The library's own digits behind a backslash are octal.
    let name = match name.contains('\\') {
        true => dns_server::names::read(name).expect("a name"),
        false => Name::from_ascii(name).expect("a name"),
    };
    let kind: RecordType = match words.next().expect("a type") {
        "IXFR" => RecordType::IXFR,
        kind => kind.parse().expect("a type"),
    };
    let mut query = Query::query(name, kind);
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    let mut client = "10.240.0.1:40212".parse().expect("an address");
    let mut transport = Transport::Udp;
    let mut listen = Listen {
        scheme: Scheme::Dns,
        address: "[::]:53".parse().expect("an address"),
    };
    let mut because = false;
    while let Some(word) = words.next() {
        match word {
            "CH" => {
                query.set_query_class(DNSClass::CH);
            }
            "*" => {
                query.set_query_class(DNSClass::ANY);
            }
            "because" => because = true,
            "from" => {
                let address = words.next().expect("an address");
                client = std::net::SocketAddr::new(address.parse().expect("an address"), 40212);
            }
            "tcp" => transport = Transport::Tcp,
            "edns" => {
                message.set_edns(Edns::new());
            }
            "do" => {
                let mut edns = Edns::new();
                edns.set_dnssec_ok(true);
                edns.set_max_payload(1232);
                message.set_edns(edns);
            }
            "port" => {
                let port = words.next().expect("a port").parse().expect("a port");
                listen.address.set_port(port);
            }
            other => panic!("{question}: what is {other}?"),
        }
    }
    message.add_query(query);
    let raw = Bytes::from(message.to_vec().expect("a query can be written"));
    let local = "127.0.0.1:53".parse().expect("an address");
    let mut request = Request::new(message, raw, client, local, transport);
    match instance.serve(&listen, &mut request).await {
        Outcome::Answer(response) if because => {
            let origin = response.origin.unwrap_or_default();
            format!("{}because {origin}\n", shown(&response.message))
        }
        Outcome::Answer(response) => shown(&response.message),
        Outcome::Silence(reason) => format!("silence {reason}\n"),
        Outcome::Stream(messages) => {
            let mut text = format!("{} messages\n", messages.len());
            for message in &messages {
                for record in &message.answers {
                    let _ = writeln!(text, "{}", record_text(record));
                }
            }
            text
        }
    }
}

fn shown(message: &Message) -> String {
    // What goes over the wire is what counts: a message that cannot be written is none.
    let octets = message.to_vec().expect("an answer can be written");
    let message = Message::from_vec(&octets).expect("an answer can be read");
    let metadata = &message.metadata;
    let mut text = dns_server::plugin::prometheus::code_label(metadata.response_code).to_owned();
    for (set, flag) in [
        (metadata.authoritative, " aa"),
        (metadata.truncation, " tc"),
        (metadata.recursion_available, " ra"),
    ] {
        text.push_str(if set { flag } else { "" });
    }
    text.push('\n');
    for (section, records) in [
        ("", &message.answers),
        ("ns ", &message.authorities),
        ("ar ", &message.additionals),
    ] {
        for record in records {
            let _ = writeln!(text, "{section}{}", record_text(record));
        }
    }
    text
}

fn record_text(record: &Record) -> String {
    let mut data = record.data.to_string();
    // A serial that follows the clock is no figure to expect.
    if let RData::SOA(soa) = &record.data
        && now().abs_diff(soa.serial) < 3600
    {
        data = data.replacen(&soa.serial.to_string(), "SERIAL", 1);
    }
    format!(
        "{} {} {} {} {data}",
        record.name,
        record.ttl,
        record.dns_class,
        record.record_type(),
    )
}

/// Seconds since 1970, as serials of clusters begin.
fn now() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as u32)
}
