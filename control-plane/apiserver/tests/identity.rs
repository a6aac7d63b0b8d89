//! Who asks, as far as a client can tell: tokens of service accounts, static tokens, acting for others, reviews.

mod support;

use api::value::text;
use serde_json::{Value, json};
use support::{Reply, Server};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

async fn with_account() -> (Server, Value) {
    let server = Server::new().await;
    let account = json!({"metadata": {"name": "bot"}});
    let account = server.post(ACCOUNTS, &account).await.ok();
    (server, account)
}

async fn token(server: &Server, spec: Value) -> Reply {
    let request = json!({"spec": spec});
    server
        .post(&format!("{ACCOUNTS}/bot/token"), &request)
        .await
}

async fn review(server: &Server, token: &str, audiences: &[&str]) -> Value {
    let review = json!({"spec": {"token": token, "audiences": audiences}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    server.post(path, &review).await.ok()["status"].take()
}

async fn as_bearer(server: &Server, token: &str, method: &str, path: &str, body: &str) -> Reply {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    server.send(method, path, &headers, body.to_owned()).await
}

// [sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview
#[tokio::test]
async fn a_token_says_whose_it_is() {
    let (server, account) = with_account().await;
    let made = token(&server, json!({"expirationSeconds": 600})).await;
    assert_eq!(made.code, 201);
    let made = made.json();
    assert_eq!(made["kind"], "TokenRequest");
    assert_eq!(made["metadata"]["name"], "bot");
    let token = text(&made, &["status", "token"]);
    let status = review(&server, token, &[]).await;
    assert_eq!(status["authenticated"], true, "{status}");
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:bot");
    assert_eq!(user["uid"], account["metadata"]["uid"]);
    assert_eq!(
        user["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
    assert_eq!(
        status["audiences"],
        json!(["https://kubernetes.default.svc.cluster.local"])
    );

    let who = as_bearer(
        &server,
        token,
        "POST",
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        "{}",
    )
    .await
    .ok();
    assert_eq!(who["status"]["userInfo"]["username"], user["username"]);
    let refused = as_bearer(&server, token, "GET", "/api/v1/namespaces/default/pods", "").await;
    assert_eq!(
        refused.refused(403),
        "pods is forbidden: User \"system:serviceaccount:default:bot\" cannot list resource \"pods\" in API group \"\" \
         in the namespace \"default\""
    );
}

#[tokio::test]
async fn a_token_ends_with_its_account() {
    let (server, _) = with_account().await;
    let made = token(&server, json!({})).await.ok();
    let token = text(&made, &["status", "token"]);
    let path = "/api/v1/namespaces/default";
    assert_eq!(as_bearer(&server, token, "GET", path, "").await.code, 403);
    server.delete(&format!("{ACCOUNTS}/bot")).await.ok();
    assert_eq!(as_bearer(&server, token, "GET", path, "").await.code, 401);
    // Another account of that name is another account.
    server
        .post(ACCOUNTS, &json!({"metadata": {"name": "bot"}}))
        .await
        .ok();
    assert_eq!(as_bearer(&server, token, "GET", path, "").await.code, 401);
    assert!(review(&server, token, &[]).await["error"].is_string());
}

#[tokio::test]
async fn a_token_is_for_its_audiences() {
    let (server, _) = with_account().await;
    let made = token(&server, json!({"audiences": ["vault", "other"]}))
        .await
        .ok();
    let token = text(&made, &["status", "token"]);
    let path = "/api/v1/namespaces/default";
    assert_eq!(as_bearer(&server, token, "GET", path, "").await.code, 401);
    let status = review(&server, token, &["vault", "mine"]).await;
    assert_eq!(status["audiences"], json!(["vault"]));
    assert!(review(&server, token, &["mine"]).await["authenticated"].is_null());
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let (server, _) = with_account().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"name": "s"}});
    let uid = server.post(secrets, &secret).await.ok()["metadata"]["uid"].take();
    let reference = |uid: Value| json!({"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": uid}});
    let refused = token(&server, reference("other".into())).await;
    assert!(
        refused
            .refused(409)
            .contains("does not match the UID in record")
    );
    let made = token(&server, reference(uid)).await.ok();
    let token = text(&made, &["status", "token"]);
    assert_eq!(review(&server, token, &[]).await["authenticated"], true);
    server.delete(&format!("{secrets}/s")).await.ok();
    assert!(review(&server, token, &[]).await["error"].is_string());
}

#[tokio::test]
async fn requests_for_tokens_that_make_no_sense() {
    let (server, _) = with_account().await;
    #[rustfmt::skip]
    let cases = [
        (json!({"expirationSeconds": 60}), 422,
         "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"),
        (json!({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}}), 400,
         "cannot bind token for serviceaccount \"bot\" to object of type v1, Kind=ConfigMap"),
        (json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "x"}}), 404, "pods \"x\" not found"),
    ];
    for (spec, code, message) in cases {
        assert_eq!(token(&server, spec).await.refused(code), message);
    }
    let path = format!("{ACCOUNTS}/nobody/token");
    let refused = server.post(&path, &json!({"spec": {}})).await;
    assert_eq!(refused.refused(404), "serviceaccounts \"nobody\" not found");
    let other = json!({"kind": "Pod", "apiVersion": "v1", "spec": {}});
    let refused = server.post(&format!("{ACCOUNTS}/bot/token"), &other).await;
    assert!(
        refused
            .refused(400)
            .contains("cannot be handled as a TokenRequest")
    );
}

#[tokio::test]
async fn what_verifies_tokens_is_published() {
    let server = Server::new().await;
    let keys = server.get("/openid/v1/jwks").await;
    assert_eq!(keys.header("content-type"), "application/jwk-set+json");
    assert_eq!(keys.json()["keys"][0]["crv"], "P-256");
    let discovered = server.get("/.well-known/openid-configuration").await.ok();
    assert_eq!(
        discovered["issuer"],
        "https://kubernetes.default.svc.cluster.local"
    );
    assert_eq!(
        discovered["id_token_signing_alg_values_supported"],
        json!(["ES256"])
    );
}

#[tokio::test]
async fn acting_for_others() {
    let server = Server::new().await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let acting = async |headers: &[(&str, &str)]| {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        server.send("POST", path, &all, "{}").await
    };
    let jane = acting(&[
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-extra-example.com%2Fscope", "a"),
    ])
    .await
    .ok();
    assert_eq!(
        jane["status"]["userInfo"],
        json!({"username": "jane", "groups": ["dev", "system:authenticated"], "extra": {"example.com/scope": ["a"]}})
    );
    assert_eq!(acting(&[("impersonate-group", "dev")]).await.code, 500);
    // Whoever acts for another has his rights alone.
    let headers = [
        ("impersonate-user", "jane"),
        ("content-type", "application/json"),
    ];
    let refused = server.send("GET", "/api/v1/nodes", &headers, "").await;
    assert_eq!(
        refused.refused(403),
        "nodes is forbidden: User \"jane\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
    );
    // Nobody does so unasked.
    let anonymous = [("authorization", "none"), ("impersonate-user", "jane")];
    let refused = server.send("GET", "/api/v1/nodes", &anonymous, "").await;
    assert_eq!(
        refused.refused(403),
        "users \"jane\" is forbidden: User \"system:anonymous\" cannot impersonate resource \"users\" in API group \"\" \
         at the cluster scope"
    );
}

#[tokio::test]
async fn static_tokens_and_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens.csv");
    std::fs::write(&file, "secret,jane,u1,dev\n").unwrap();
    let storage = std::sync::Arc::new(storage::memory::Memory::new());
    let server = Server::with(storage, |config| {
        config.token_auth_file = Some(file);
        config.anonymous_auth = false;
    })
    .await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let jane = as_bearer(&server, "secret", "POST", path, "{}").await.ok();
    assert_eq!(
        jane["status"]["userInfo"],
        json!({"username": "jane", "uid": "u1", "groups": ["dev", "system:authenticated"]})
    );
    assert_eq!(
        as_bearer(&server, "wrong", "POST", path, "{}").await.code,
        401
    );
    let nobody = server
        .send("GET", "/healthz", &[("authorization", "")], "")
        .await;
    assert_eq!(nobody.code, 401);
}

#[tokio::test]
async fn may_somebody() {
    let server = Server::new().await;
    let ask = async |kind: &str, body: Value| {
        let path = format!("/apis/authorization.k8s.io/v1/{kind}");
        server.post(&path, &body).await
    };
    let own = json!({"spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}}});
    let answer = ask("selfsubjectaccessreviews", own).await;
    assert_eq!(answer.code, 201);
    assert_eq!(answer.json()["status"]["allowed"], true);
    let other = json!({"spec": {
        "user": "jane", "groups": ["system:authenticated"],
        "nonResourceAttributes": {"verb": "get", "path": "/version"},
    }});
    let answer = ask("subjectaccessreviews", other).await.ok();
    assert_eq!(answer["status"]["allowed"], true);
    assert!(
        text(&answer, &["status", "reason"]).starts_with("RBAC: allowed by ClusterRoleBinding")
    );
    // Selectors: what cannot be heeded is told, what makes no sense refused.
    let about = |selectors: Value| {
        let mut asked = json!({"verb": "list", "resource": "pods", "namespace": "default"});
        let members = asked.as_object_mut().unwrap();
        members.extend(selectors.as_object().unwrap().clone());
        json!({"spec": {"user": "x", "resourceAttributes": asked}})
    };
    let one = |operator: &str, values: &[&str]| json!({"key": "k", "operator": operator, "values": values});
    let field = "spec.resourceAttributes.fieldSelector";
    let label = "spec.resourceAttributes.labelSelector";
    #[rustfmt::skip]
    let told = [
        (json!({"fieldSelector": {"rawSelector": "a=b,c!=d"}, "labelSelector": {"rawSelector": "a in (b)"}}), String::new()),
        (json!({"fieldSelector": {"rawSelector": "key in value"}, "labelSelector": {"rawSelector": "&"}}),
            format!("{field} ignored due to parse error; {label} ignored due to parse error")),
        (json!({"fieldSelector": {"requirements": [one("In", &["a"]), one("In", &["a", "b"])]}}),
            format!("{field} partially ignored due to parse error")),
        (json!({"fieldSelector": {"requirements": [one("Exists", &[])]}}), format!("{field} ignored due to parse error")),
        (json!({"labelSelector": {"requirements": [one("Exists", &[]), one("In", &["a", "b"])]}}), String::new()),
        (json!({"labelSelector": {"requirements": [one("Exists", &[]), one("Later", &["a"])]}}),
            format!("{label} partially ignored due to parse error")),
    ];
    for (selectors, wanted) in told {
        let answer = ask("subjectaccessreviews", about(selectors)).await.ok();
        assert_eq!(text(&answer, &["status", "evaluationError"]), wanted);
    }
    #[rustfmt::skip]
    let wrong = [
        (json!({"fieldSelector": {"requirements": [one("In", &[])]}}),
            format!("{field}.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'")),
        (json!({"fieldSelector": {"requirements": [{"operator": "Exists"}]}}),
            format!("{field}.requirements[0].key: Required value: must be specified")),
        (json!({"labelSelector": {"requirements": [one("Exists", &["a"])]}}),
            format!("{label}.requirements[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'")),
        (json!({"labelSelector": {"requirements": [one("In", &["-"])]}}),
            format!("{label}.requirements[0].values[0]: Invalid value: \"-\": ")),
    ];
    for (selectors, wanted) in wrong {
        let refused = ask("subjectaccessreviews", about(selectors))
            .await
            .refused(422);
        assert!(refused.contains(&wanted), "{refused} {wanted}");
    }
    let refused = ask("subjectaccessreviews", json!({"spec": {"user": "x"}})).await;
    assert_eq!(
        refused.refused(422),
        "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes: Invalid value: null: exactly \
         one of nonResourceAttributes or resourceAttributes must be specified"
    );
    let local = json!({"spec": {"user": "x", "resourceAttributes": {"namespace": "b", "verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews";
    assert_eq!(server.post(path, &local).await.code, 400);
    let rules = ask(
        "selfsubjectrulesreviews",
        json!({"spec": {"namespace": "default"}}),
    )
    .await
    .ok();
    let status = &rules["status"];
    assert_eq!(status["incomplete"], false);
    assert_eq!(status["resourceRules"][0]["resources"], json!(["*"]));
}
