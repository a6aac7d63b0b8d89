//! Labels of metrics: those that are joined with each other have the same ones.

mod common;

use std::time::Duration;

const OBJECTS: &str = "
kind: Namespace
metadata: {name: default}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_of_a_block_have_its_name() {
    let text = ". {\n bind 127.0.0.1\n errors\n reload\n prometheus 127.0.0.1:0\n kubernetes cluster.local\n loop\n \
                forward . 127.0.0.1:9\n}\n";
    let server = common::run(text, Some(OBJECTS)).await;
    let instance = server.reloader.current().load_full();
    let metrics = &instance.environment().metrics;
    // The probe of `loop` ends as soon as the upstream, which is not there, is known not to answer.
    let probe = r#"coredns_dns_requests_total{server="dns://127.0.0.1:0",zone=".",view="",proto="udp",family="1",type="other"} 1"#;
    let counted = async {
        while !metrics.render().contains(probe) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(15), counted).await;
    let text = metrics.render();
    assert!(counted.is_ok(), "{probe} is not in\n{text}");
    let enabled = |plugin| {
        format!(
            "coredns_plugin_enabled{{server=\"dns://127.0.0.1:0\",zone=\".\",view=\"\",name=\"{plugin}\"}} 1\n"
        )
    };
    for plugin in ["errors", "prometheus", "kubernetes", "loop", "forward"] {
        assert!(text.contains(&enabled(plugin)), "{plugin}\n{text}");
    }
    for plugin in ["bind", "reload"] {
        assert!(!text.contains(&enabled(plugin)), "{plugin}\n{text}");
    }
    assert!(!text.contains("server=\"\""), "{text}");
    assert!(!text.contains("server=\"dns://:0\""), "{text}");
    let requests = "coredns_kubernetes_rest_client_requests_total{code=\"200\",method=\"GET\"";
    assert!(text.contains(requests), "{text}");
    server.stop().await;
}
