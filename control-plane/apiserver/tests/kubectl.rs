//! The real kubectl against the server, over TLS on loopback, with the durable store below.
//!
//! The cases are transcripts in `tests/kubectl/`: `$` is a shell command, `<` its input, `>` a line of its output, `!`
//! one of its error output, `=` its exit code where that is not zero. In a line that is expected `*` stands for
//! anything, `...` alone for any number of lines, and runs of blanks are one. What is not given is not compared.
//!
//! kubectl is `$KUBECTL`, else that of `$PATH`; without one the tests fail. Those named `kubectl.1.N` beside it run the
//! transcript `versions.txt` too.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use apiserver::Config;
use storage_embedded::{Embedded, Options};
use tokio::sync::oneshot;

/// The longest that a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kubectl to test with.
fn kubectl() -> PathBuf {
    let given = std::env::var_os("KUBECTL").map(PathBuf::from);
    let found = given.or_else(|| {
        let path = std::env::var_os("PATH")?;
        let candidates = std::env::split_paths(&path).map(|directory| directory.join("kubectl"));
        candidates.into_iter().find(|candidate| candidate.is_file())
    });
    let found = found.expect("these tests need kubectl: install it, or name it in $KUBECTL");
    fs::canonicalize(&found).unwrap_or_else(|error| panic!("$KUBECTL {}: {error}", found.display()))
}

/// A server with a store in a directory of its own, and a home for kubectl.
struct Server {
    home: Option<tempfile::TempDir>,
    /// Ends the server.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn new(kubectl: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("bin")).unwrap();
        symlink(kubectl, home.path().join("bin/kubectl")).unwrap();
        Self::at(home)
    }

    /// A server on what an earlier one left behind.
    fn at(home: tempfile::TempDir) -> Self {
        let directory = home.path().to_owned();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let store = Embedded::open(directory.join("store"), Options::default()).unwrap();
                let config = Config {
                    bind_address: [127, 0, 0, 1].into(),
                    port: 0,
                    kubeconfig: Some(directory.join("kubeconfig")),
                    ..Config::new(directory.join("server"))
                };
                let app = apiserver::build(config, Arc::new(store)).await.unwrap();
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let url = app.url(listener.local_addr().unwrap());
                app.write_kubeconfig(&directory.join("kubeconfig"), &url)
                    .unwrap();
                ready.send(()).unwrap();
                let stopped = async {
                    let _ = stopped.await;
                };
                app.serve(listener, stopped).await.unwrap();
            });
        });
        is_ready.recv_timeout(PATIENCE).expect("the server starts");
        Self {
            home: Some(home),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// A shell command with `kubectl` in its path, a home, and the administrator's kubeconfig.
    fn shell(&self, command: &str) -> Command {
        let home = self
            .home
            .as_ref()
            .expect("it is there until the server has stopped")
            .path();
        let mut path = home.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .current_dir(home)
            .env("PATH", path)
            .env("HOME", home)
            .env("KUBECONFIG", home.join("kubeconfig"))
            .env("TZ", "UTC")
            .env_remove("KUBE_EDITOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        shell
    }

    fn run(&self, command: &str, input: &str) -> Output {
        let mut child = self.shell(command).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that reads nothing may be gone by now.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        finish(child, command)
    }
}

impl Server {
    /// Ends the server and hands over its home.
    fn stop(&mut self) -> Option<tempfile::TempDir> {
        if let Some(stop) = self.stop.take() {
            // Where it is gone already, joining it says why.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
        self.home.take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for a command, and not for ever.
fn finish(mut child: Child, command: &str) -> Output {
    let mut read = Vec::new();
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().unwrap()),
        Box::new(child.stderr.take().unwrap()),
    ];
    for mut pipe in pipes {
        read.push(std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).map(|_| bytes)
        }));
    }
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("`{command}` is still running after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut read = read.into_iter().map(|pipe| pipe.join().unwrap().unwrap());
    Output {
        status,
        stdout: read.next().unwrap(),
        stderr: read.next().unwrap(),
    }
}

/// One command of a transcript and what is expected of it.
#[derive(Default, Debug)]
struct Step {
    line: usize,
    command: String,
    input: String,
    stdout: Option<Vec<String>>,
    stderr: Option<Vec<String>>,
    code: i32,
}

fn parse(transcript: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (i, line) in transcript.lines().enumerate() {
        let (mark, rest) = line.split_at(line.len().min(1));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if mark == "$" {
            steps.push(Step {
                line: i + 1,
                command: rest.to_owned(),
                ..Step::default()
            });
            continue;
        }
        if matches!(mark, "" | "#") {
            continue;
        }
        let step = steps.last_mut().expect("a command comes first");
        match mark {
            "<" => step.input += &format!("{rest}\n"),
            ">" => step.stdout.get_or_insert_default().push(rest.to_owned()),
            "!" => step.stderr.get_or_insert_default().push(rest.to_owned()),
            "=" => step.code = rest.parse().expect("an exit code"),
            _ => panic!("line {} is of no kind: {line}", i + 1),
        }
    }
    steps
}

/// Runs a transcript on a server of its own. Panics with all that differs.
fn play(kubectl: &Path, name: &str) {
    let differences = differences(kubectl, name);
    assert!(differences.is_empty(), "{differences}");
}

fn differences(kubectl: &Path, name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/kubectl")
        .join(name);
    let transcript = fs::read_to_string(&file).unwrap();
    let server = Server::new(kubectl);
    let mut differences = String::new();
    for step in parse(&transcript) {
        let output = server.run(&step.command, &step.input);
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let as_expected = output.status.code() == Some(step.code)
            && step
                .stdout
                .is_none_or(|wanted| lines_match(&wanted, &stdout))
            && step
                .stderr
                .is_none_or(|wanted| lines_match(&wanted, &stderr));
        if !as_expected {
            let code = output.status.code();
            differences += &format!(
                "{}, {name}:{}: $ {}\nexit {code:?}, expected {}\n--- output\n{stdout}\n--- error output\n{stderr}\n",
                kubectl.display(),
                step.line,
                step.command,
                step.code
            );
        }
    }
    differences
}

fn lines_match(wanted: &[String], text: &str) -> bool {
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted: Vec<String> = wanted.iter().map(|line| squeeze(line)).collect();
    let lines: Vec<String> = text.lines().map(squeeze).collect();
    sequence_matches(
        &wanted,
        &lines,
        |wanted| wanted == "...",
        |wanted, line| {
            let wanted: Vec<char> = wanted.chars().collect();
            let line: Vec<char> = line.chars().collect();
            sequence_matches(&wanted, &line, |c| *c == '*', |a, b| a == b)
        },
    )
}

/// Whether a pattern, some items of which stand for any number of items, matches a sequence.
fn sequence_matches<T>(
    pattern: &[T],
    items: &[T],
    any: impl Fn(&T) -> bool,
    equal: impl Fn(&T, &T) -> bool,
) -> bool {
    // Which prefixes of `items` the pattern so far matches.
    let mut reached = vec![false; items.len() + 1];
    reached[0] = true;
    for wanted in pattern {
        if any(wanted) {
            let first = reached
                .iter()
                .position(|reached| *reached)
                .unwrap_or(items.len() + 1);
            for reached in reached.iter_mut().skip(first) {
                *reached = true;
            }
        } else {
            for i in (0..items.len()).rev() {
                reached[i + 1] = reached[i] && equal(wanted, &items[i]);
            }
            reached[0] = false;
        }
    }
    reached[items.len()]
}

#[test]
fn patterns() {
    for (wanted, text, matches) in [
        (&["a  b"][..], "a b\n", true),
        (&["a *"], "a b c\n", true),
        (&["*c"], "a b c", true),
        (&["a*b"], "a c", false),
        (&["a", "..."], "a\nb\nc\n", true),
        (&["...", "c"], "a\nb\nc\n", true),
        (&["...", "d"], "a\nb\nc\n", false),
        (&["a"], "a\nb\n", false),
        (&[], "a", false),
        (&[], "", true),
    ] {
        let wanted: Vec<String> = wanted.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(
            lines_match(&wanted, text),
            matches,
            "{wanted:?} and {text:?}"
        );
    }
}

#[test]
fn objects() {
    play(&kubectl(), "objects.txt");
}

#[test]
fn services() {
    play(&kubectl(), "services.txt");
}

#[test]
fn changes() {
    play(&kubectl(), "changes.txt");
}

#[test]
fn reading() {
    play(&kubectl(), "reading.txt");
}

#[test]
fn access() {
    play(&kubectl(), "access.txt");
}

#[test]
fn refusals() {
    play(&kubectl(), "refusals.txt");
}

#[test]
fn every_version() {
    play_all("versions.txt");
}

#[test]
fn every_version_applies_on_the_server() {
    play_all("managers.txt");
}

/// Plays a transcript with each kubectl that there is.
fn play_all(name: &str) {
    let kubectl = kubectl();
    let beside = fs::read_dir(kubectl.parent().unwrap()).unwrap();
    let mut versions: Vec<PathBuf> = beside
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("kubectl.1."))
        })
        .collect();
    versions.push(kubectl);
    versions.sort();
    let differences: String = versions
        .iter()
        .map(|version| differences(version, name))
        .collect();
    assert!(differences.is_empty(), "{differences}");
}

/// A command in the background whose lines are read as they come.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn new(server: &Server, command: &str) -> Self {
        // The shell gives way to kubectl, so that killing it ends kubectl.
        let mut child = server.shell(&format!("exec {command}")).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let blanks_are_one = line.split_whitespace().collect::<Vec<_>>().join(" ");
                if send.send(blanks_are_one).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line that begins so; others before it are passed over.
    #[track_caller]
    fn until(&self, beginning: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with(beginning) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no line begins with {beginning:?} ({error}): {seen:?}"),
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watching() {
    let server = Server::new(&kubectl());
    let ok = |command: &str| {
        let output = server.run(command, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {stderr}");
    };
    ok("kubectl create configmap a --from-literal=k=1");
    let table = Watching::new(&server, "kubectl get configmaps -w --output-watch-events");
    table.until("EVENT NAME DATA AGE");
    table.until("ADDED a 1 ");
    let names = Watching::new(&server, "kubectl get configmaps -l tier=front -w -o name");
    ok("kubectl create configmap b --from-literal=k=1 --from-literal=l=2");
    table.until("ADDED b 2 ");
    ok("kubectl label configmap b tier=front");
    table.until("MODIFIED b 2 ");
    assert_eq!(names.until("configmap/"), "configmap/b");
    // Leaving the selection is a deletion to those who watch by selector.
    let gone = Watching::new(
        &server,
        "kubectl get configmaps -l tier=front -w --output-watch-events -o name",
    );
    ok("kubectl label configmap b tier=back --overwrite");
    ok("kubectl delete configmap a");
    table.until("DELETED a 1 ");
    drop(gone);

    let waiting = Watching::new(
        &server,
        "kubectl wait configmap/b --for=jsonpath={.data.k}=9 --timeout=50s",
    );
    ok("kubectl patch configmap b --type=merge -p '{\"data\":{\"k\":\"9\"}}'");
    waiting.until("configmap/b condition met");

    // A deletion waits for the finalizers of others.
    ok(
        "kubectl patch configmap b --type=merge -p '{\"metadata\":{\"finalizers\":[\"example.com/hold\"]}}'",
    );
    let mut deleting = Watching::new(&server, "kubectl delete configmap b");
    deleting.until("configmap \"b\" deleted");
    ok("kubectl get configmap b -o jsonpath='{.metadata.deletionTimestamp}' | grep -q Z");
    assert!(
        deleting.child.try_wait().unwrap().is_none(),
        "it is still there"
    );
    ok("kubectl patch configmap b --type=merge -p '{\"metadata\":{\"finalizers\":null}}'");
    assert!(deleting.child.wait().unwrap().success());
    ok("! kubectl get configmap b");
}

/// What a server of plain HTTP answers to a GET.
fn get(mut stream: impl Read + std::io::Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// [sig-cli] Kubectl client Proxy server should support proxy with --port 0 [Conformance]
/// [sig-cli] Kubectl client Proxy server should support --unix-socket=/path [Conformance]
#[test]
fn proxying() {
    let server = Server::new(&kubectl());
    let proxy = Watching::new(&server, "kubectl proxy --port=0 --disable-filter=true");
    let told = proxy.until("Starting to serve on ");
    let address = told.rsplit(' ').next().unwrap();
    let stream = std::net::TcpStream::connect(address).unwrap();
    let answer = get(stream, "/api/");
    assert!(
        answer.contains("\"kind\": \"APIVersions\"") || answer.contains("\"kind\":\"APIVersions\""),
        "{answer}"
    );
    drop(proxy);

    let proxy = Watching::new(
        &server,
        "kubectl proxy --unix-socket=proxy.sock --disable-filter=true",
    );
    proxy.until("Starting to serve on ");
    let home = server.home.as_ref().unwrap().path();
    let stream = std::os::unix::net::UnixStream::connect(home.join("proxy.sock")).unwrap();
    let answer = get(stream, "/api/");
    assert!(
        answer.starts_with("HTTP/1.0 200") && answer.contains("APIVersions"),
        "{answer}"
    );
}

/// [sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments [Conformance]
#[test]
fn differing() {
    let server = Server::new(&kubectl());
    let deployment = |image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: httpd}}\nspec:\n  replicas: 1\n  selector: \
             {{matchLabels: {{app: httpd}}}}\n  template:\n    metadata: {{labels: {{app: httpd}}}}\n    spec: \
             {{containers: [{{name: httpd, image: \"{image}\"}}]}}\n"
        )
    };
    let run = |command: &str, input: &str| server.run(command, input);
    assert!(
        run("kubectl create -f -", &deployment("httpd:2.4.38"))
            .status
            .success()
    );
    let same = run("kubectl diff -f -", &deployment("httpd:2.4.38"));
    assert!(same.status.success() && same.stdout.is_empty());
    let other = run("kubectl diff -f -", &deployment("busybox:1.29"));
    let shown = String::from_utf8_lossy(&other.stdout);
    assert_eq!(other.status.code(), Some(1), "{shown}");
    for (sign, image) in [('-', "image: httpd:2.4.38"), ('+', "image: busybox:1.29")] {
        let found = shown
            .lines()
            .any(|line| line.starts_with(sign) && line.contains(image));
        assert!(found, "{sign} {image}: {shown}");
    }
}

#[test]
fn restarting() {
    let mut server = Server::new(&kubectl());
    let run = |server: &Server, command: &str| {
        let output = server.run(command, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(
        &server,
        "kubectl create service nodeport web --tcp=80 --node-port=30123",
    );
    run(&server, "kubectl create configmap c --from-literal=a=b");
    let what = "kubectl get service/web configmap/c -o yaml";
    let before = run(&server, what);
    let revision = |server: &Server| {
        let list = run(server, "kubectl get --raw '/api/v1/services?limit=1'");
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let was = revision(&server);
    let address = "kubectl get service web -o jsonpath='{.spec.clusterIP}'";
    let taken = run(&server, address);

    for _ in 0..2 {
        server = Server::at(server.stop().unwrap());
        assert_eq!(run(&server, what), before);
        assert!(revision(&server) >= was, "revisions never rewind");
        // What was given out before is still taken.
        for command in [
            "kubectl create service nodeport other --tcp=80 --node-port=30123".to_owned(),
            format!("kubectl create service clusterip other --tcp=80 --clusterip={taken}"),
        ] {
            let output = server.run(&command, "");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(
                stderr.contains("is already allocated"),
                "{command}: {stderr}"
            );
        }
    }
}
