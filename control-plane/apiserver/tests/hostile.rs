//! Input that is meant to hurt: every answer has Kubernetes' shape, comes soon, and the server lives on.

mod support;

use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use support::{Reply, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// What no request here may take, with room for a busy machine and a build without optimisation.
const SOON: Duration = Duration::from_secs(20);

/// Method, path, content type and body.
type Sent<'a> = (&'a str, &'a str, &'a str, Vec<u8>);

/// Sends it, and asserts that the refusal is a Status with one of these codes.
async fn refused(server: &Server, what: &str, codes: &[u16], request: Sent<'_>) -> Value {
    let (method, path, content_type, body) = request;
    let begun = Instant::now();
    let reply = server
        .send(method, path, &[("content-type", content_type)], body)
        .await;
    assert!(begun.elapsed() < SOON, "{what} took {:?}", begun.elapsed());
    assert!(
        codes.contains(&reply.code),
        "{what}: {} {:.300}",
        reply.code,
        String::from_utf8_lossy(&reply.body)
    );
    assert!(
        reply.body.len() < 4 << 20,
        "{what}: an answer of {} bytes",
        reply.body.len()
    );
    let status = reply.json();
    assert_eq!(status["kind"], "Status", "{what}");
    assert_eq!(status["code"], reply.code, "{what}");
    assert!(status["message"].is_string(), "{what}");
    status
}

fn nested(open: &str, middle: &str, close: &str, depth: usize) -> String {
    format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
}

#[tokio::test]
async fn bodies() {
    let server = Server::new().await;
    let map = |data: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"m"}},"data":{data}}}"#
        )
    };
    let pod = |part: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p"}},"spec":{part}}}"#)
    };
    let json = "application/json";
    let deep = 10_000;
    let large = (3 << 20) - 200;
    let pods = "/api/v1/namespaces/default/pods";
    let many_keys: String = (0..100_000).map(|i| format!("\"k{i}\":\"v\",")).collect();
    let twice = r#""a":"b","#.repeat(200_000);
    let containers = format!("{{\"containers\":[{}{{}}]}}", "{},".repeat(200_000));
    #[rustfmt::skip]
    let cases: Vec<(&str, &[u16], Sent<'_>)> = vec![
        ("deep objects", &[400], ("POST", MAPS, json, map(&nested("{\"a\":", "1", "}", deep)).into())),
        ("deep lists", &[400], ("POST", pods, json, pod(&nested("[", "", "]", deep)).into())),
        ("lists that never close", &[400], ("POST", MAPS, json, "[".repeat(large).into())),
        ("deep YAML", &[400], ("POST", MAPS, "application/yaml", nested("{a: ", "1", "}", deep).into())),
        ("deep YAML by indent", &[400], ("POST", MAPS, "application/yaml", (0..1500).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>().into())),
        ("YAML that multiplies", &[400, 413], ("POST", MAPS, "application/yaml", (0..40).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
            format!("{text}a{}: &a{} [{}]\n", i + 1, i + 1, vec![format!("*a{i}"); 9].join(","))
        }).into())),
        ("invalid UTF-8", &[400], ("POST", MAPS, json, [map("{\"a\":\"").into_bytes(), vec![0xff, 0xfe, 0xc0], b"\"}}".to_vec()].concat())),
        ("half a surrogate and no end", &[400], ("POST", MAPS, json, map("{\"a\":\"\\ud800\\").into())),
        ("too large", &[413], ("POST", MAPS, json, map(&format!("{{\"a\":\"{}\"}}", "x".repeat(3 << 20))).into())),
        ("many keys, strictly twice", &[400], ("POST", "/api/v1/namespaces/default/configmaps?fieldValidation=Strict", json, map(&format!("{{{twice}\"b\":\"c\"}}")).into())),
        ("many keys that nobody knows", &[400], ("POST", "/api/v1/namespaces/default/pods?fieldValidation=Strict", json, pod(&format!("{{{many_keys}\"b\":1}}")).into())),
        ("many faults", &[422], ("POST", pods, json, pod(&containers).into())),
        ("a long number", &[400], ("POST", pods, json, pod(&format!("{{\"activeDeadlineSeconds\":{}}}", "9".repeat(1 << 20))).into())),
        ("a body of no bytes", &[400, 422], ("POST", MAPS, json, Vec::new())),
        ("zeros as protobuf", &[400], ("POST", MAPS, "application/vnd.kubernetes.protobuf", vec![0; 1 << 20])),
        ("lengths that lie", &[400], ("POST", MAPS, "application/vnd.kubernetes.protobuf", [b"k8s\0\x0a".to_vec(), vec![0xff; 64]].concat())),
        ("a patch of depth", &[400, 404, 422], ("PATCH", "/api/v1/namespaces/default/configmaps/m", "application/merge-patch+json", nested("{\"a\":", "1", "}", deep).into())),
        ("a strategic patch of depth", &[400, 404, 422], ("PATCH", "/api/v1/namespaces/default/configmaps/m", "application/strategic-merge-patch+json", nested("{\"$patch\":", "1", "}", deep).into())),
        ("delete options of depth", &[400, 404], ("DELETE", "/api/v1/namespaces/default/configmaps/m", json, nested("{\"a\":", "1", "}", deep).into())),
    ];
    for (what, codes, request) in cases {
        refused(&server, what, codes, request).await;
    }
    // Patches that grow.
    let whole = json!({"metadata": {"name": "m"}, "data": {"a": "x".repeat(100_000)}});
    server.post(MAPS, &whole).await.ok();
    let copies: Vec<Value> = (0..60)
        .map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/c{i}")}))
        .collect();
    let status = refused(
        &server,
        "a patch that doubles",
        &[400, 413, 422],
        (
            "PATCH",
            "/api/v1/namespaces/default/configmaps/m",
            "application/json-patch+json",
            json!(copies).to_string().into(),
        ),
    )
    .await;
    assert!(status["message"].as_str().unwrap().len() < 100_000);
    assert_eq!(server.get("/livez").await.code, 200);
}

#[tokio::test]
async fn queries() {
    let server = Server::new().await;
    let get = async |what: &str, query: String, codes: &[u16]| -> Reply {
        let begun = Instant::now();
        let reply = server.get(&format!("{MAPS}?{query}")).await;
        assert!(begun.elapsed() < SOON, "{what}");
        assert!(codes.contains(&reply.code), "{what}: {}", reply.code);
        reply
    };
    let names: Vec<String> = (0..5000).map(|i| format!("v{i}")).collect();
    get(
        "a selector of many values",
        format!("labelSelector=a%20in%20({})", names.join(",")),
        &[200, 400],
    )
    .await;
    get(
        "a selector of many terms",
        format!("labelSelector={}", vec!["a=b"; 5000].join(",")),
        &[200, 400],
    )
    .await;
    get(
        "a selector of brackets",
        format!("labelSelector={}", "(".repeat(50_000)),
        &[400],
    )
    .await;
    get(
        "a selector of bangs",
        format!("labelSelector={}", "!".repeat(50_000)),
        &[400],
    )
    .await;
    get(
        "a field selector of many terms",
        format!("fieldSelector={}", vec!["metadata.name=b"; 3000].join(",")),
        &[200, 400],
    )
    .await;
    get(
        "escapes that escape nothing",
        format!("fieldSelector={}", "%5C".repeat(20_000)),
        &[400],
    )
    .await;
    get(
        "a limit below nothing",
        "limit=-9223372036854775808".into(),
        &[200, 400],
    )
    .await;
    get(
        "a limit beyond all",
        "limit=9223372036854775807".into(),
        &[200],
    )
    .await;
    get(
        "a version beyond all",
        "resourceVersion=99999999999999999999999".into(),
        &[400],
    )
    .await;
    get(
        "a version that is to come",
        "resourceVersion=18446744073709551615".into(),
        &[504],
    )
    .await;
    get(
        "a timeout beyond all",
        "watch=true&timeoutSeconds=9223372036854775807&resourceVersion=abc".into(),
        &[400],
    )
    .await;

    // Tokens from elsewhere and from other lists.
    for i in 0..3 {
        server
            .post(MAPS, &json!({"metadata": {"name": format!("m{i}")}}))
            .await
            .ok();
    }
    server
        .post(
            "/api/v1/namespaces/default/secrets",
            &json!({"metadata": {"name": "z"}, "stringData": {"a": "secret"}}),
        )
        .await
        .ok();
    let page = get("a page", "limit=1".into(), &[200]).await.json();
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    let other = server
        .get(&format!(
            "/api/v1/namespaces/default/secrets?limit=1&continue={token}"
        ))
        .await;
    assert!(matches!(other.code, 200 | 400), "{}", other.code);
    let made =
        |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    for start in [
        "../secrets/default/z",
        "/registry/secrets/default/z",
        "..",
        "\u{0}",
        &"x".repeat(30_000),
    ] {
        let token =
            made(json!({"v": "meta.k8s.io/v1", "rv": server.storage.revision().0, "start": start}));
        let reply = get(
            "a token that was made up",
            format!("limit=5&continue={token}"),
            &[200, 400],
        )
        .await;
        assert!(
            !String::from_utf8_lossy(&reply.body).contains("secret"),
            "{start:.40}"
        );
    }
    for token in [
        made(json!({"v": "meta.k8s.io/v1", "rv": u64::MAX, "start": "a"})),
        made(json!([])),
        "e".repeat(60_000),
        "%00".into(),
    ] {
        get(
            "a token of nonsense",
            format!("limit=5&continue={token}"),
            &[400, 504],
        )
        .await;
    }
    // Replayed, it tells the same.
    let replay = async || {
        get("a replay", format!("limit=1&continue={token}"), &[200])
            .await
            .json()["items"]
            .clone()
    };
    assert_eq!(replay().await, replay().await);
}

#[tokio::test]
async fn expressions_and_patterns() {
    let server = Server::new().await;
    let policy = |expression: &str| {
        json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"]}]},
        "validations": [{"expression": expression}],
    }}).to_string()
    };
    let definition = |schema: Value| {
        json!({"metadata": {"name": "foos.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }}).to_string()
    };
    let pattern = |pattern: &str| {
        definition(
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}),
        )
    };
    let rule = |rule: &str| {
        definition(
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}},
        "x-kubernetes-validations": [{"rule": rule}]}),
        )
    };
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let mut deep = json!({"type": "string"});
    for _ in 0..400 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    #[rustfmt::skip]
    let cases: Vec<(&str, &str, String)> = vec![
        ("CEL of depth", policies, policy(&nested("(", "true", ")", 20_000))),
        ("CEL without end", policies, policy(&"1+".repeat(50_000))),
        ("CEL of lists", policies, policy(&format!("{} == []", nested("[", "", "]", 20_000)))),
        ("CEL of questions", policies, policy(&format!("{}true", "true?".repeat(20_000)))),
        ("a pattern that multiplies", DEFINITIONS, pattern("((((((a{1000}){1000}){1000}){1000}){1000}){1000})")),
        ("a pattern of depth", DEFINITIONS, pattern(&nested("(", "a", ")", 20_000))),
        ("a rule over all pairs", DEFINITIONS, rule("self.a.all(x, self.a.all(y, x.all(z, y.all(w, z == w || z != w))))")),
        ("a schema of depth", DEFINITIONS, definition(deep)),
    ];
    for (what, path, body) in cases {
        refused(
            &server,
            what,
            &[400, 422],
            ("POST", path, "application/json", body.into()),
        )
        .await;
    }
    // One that is cheap to read and dear to carry out is cut off, and its policy fails.
    let product = format!(
        "{}.size() > 0",
        (0..6).fold("object.data".to_owned(), |list, i| format!(
            "[1,2,3,4,5,6,7,8,9,10].map(x{i}, {list})"
        ))
    );
    let dear = format!(
        "[{}].all(a, [{}].all(b, [{}].all(c, {product})))",
        "1,".repeat(99) + "1",
        "1,".repeat(99) + "1",
        "1,".repeat(99) + "1"
    );
    server
        .post(policies, &serde_json::from_str(&policy(&dear)).unwrap())
        .await
        .ok();
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    server
        .post(
            "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
            &binding,
        )
        .await
        .ok();
    let body = json!({"metadata": {"name": "m"}, "data": {"a": "b"}}).to_string();
    let status = refused(
        &server,
        "a dear expression",
        &[422],
        ("POST", MAPS, "application/json", body.into()),
    )
    .await;
    assert!(
        status["message"].as_str().unwrap().contains("cost"),
        "{status}"
    );
}
