//! Lines that users of CoreDNS write, one block each: all of them are taken.

mod common;

use std::sync::Arc;

use dns_server::cluster::Clusters;
use dns_server::instance::{Environment, Instance};
use dns_server::message::{Outcome, Request, Transport};

/// What stands within `. { ... }`; blocks that need another plugin name it.
const LINES: &[&str] = &[
    "acl {\n allow net 10.0.0.0/8 192.168.0.0/16\n block\n}",
    "acl example.org {\n block type A net 10.0.0.0/8\n filter type HTTPS\n drop net 2001:db8::/32\n allow type A AAAA net 127.0.0.1\n}",
    "acl {\n block type * net *\n}",
    "any",
    "auto example.org {\n directory zones\n}",
    "auto org {\n directory zones (.*) {1}\n reload 30s\n}",
    "auto org {\n directory zones www\\.db\\.(.*) {1} 45\n}",
    "autopath resolv.conf",
    "autopath cluster.local @kubernetes\nkubernetes cluster.local {\n pods verified\n}",
    "bind 127.0.0.1 ::1",
    "bind lo",
    "bind lo {\n except 127.0.0.1\n}",
    "bind lo\nbind 127.0.0.1 {\n except ::1\n}",
    "bind localhost",
    "bufsize",
    "bufsize 1100",
    "cache",
    "cache 3600 example.org example.net",
    "cache {\n success 0\n denial 0\n}",
    "cache {\n success 5000\n denial 2500\n}",
    "cache 60 {\n success 5000 3600 5\n denial 2500 1800 5\n prefetch 10\n serve_stale\n servfail 5s\n disable success\n keepttl\n}",
    "cache {\n prefetch 10 1m 10%\n serve_stale 1h verify\n servfail 0\n disable denial example.org\n}",
    "cache {\n serve_stale 2h immediate\n}",
    "cache {\n serve_stale 0s\n}",
    "cancel",
    "cancel 1s",
    "chaos",
    "chaos CoreDNS-1.14 info@example.org admin@example.org",
    "debug",
    "dns64",
    "dns64 64:1337::/96",
    "dns64 {\n prefix 64:1337::/96\n allow_ipv4\n translate_all\n}",
    "dnstap tap.sock",
    "dnstap unix:///tmp/tap.sock full",
    "dnstap tcp://127.0.0.1:6000 full {\n identity me\n version 1\n}",
    "dnstap tap.sock full 1024 2048",
    "dnstap tcp://example.com:6000 full",
    "dnstap tls://127.0.0.1:6000 full {\n skipverify\n}",
    "dnstap tap.sock {\n extra \"upstream: {/forward/upstream}\"\n}\nforward . 192.0.2.1\nmetadata",
    "dnstap listen tap.sock full",
    "dnstap listen tls://127.0.0.1:6000 full {\n tls cert.pem key.pem cert.pem\n}",
    "dnstap listen tls://127.0.0.1:6000 {\n tls cert.pem key.pem\n skipverify\n}",
    "dnstap tap.sock full\ndnstap tcp://example.com:6000\ndnstap listen tcp://127.0.0.1:6001 full",
    "errors",
    "errors {\n consolidate 5m \".* i/o timeout$\" warning\n consolidate 30s \"^Failed to .+\"\n}",
    "errors {\n stacktrace\n}",
    "file zone example.org",
    "file zone example.org {\n reload 0\n}",
    "file zone example.org {\n reload 30s\n upstream\n}",
    "forward . 192.0.2.1",
    "forward . 192.0.2.1:1053 [2001:db8::1]:53 tls://192.0.2.2 dns://192.0.2.3",
    "forward . resolv.conf {\n except example.org example.net\n}",
    "forward . 192.0.2.1 {\n prefer_udp\n expire 10s\n max_fails 3\n policy round_robin\n health_check 5s no_rec domain example.org\n max_concurrent 1000\n}",
    "forward . tls://9.9.9.9 {\n tls_servername dns.quad9.net\n health_check 5s\n}",
    "forward . tls://9.9.9.9%dns.quad9.net tls://1.1.1.1%cloudflare-dns.com",
    "forward . tls://9.9.9.9 {\n tls cert.pem key.pem cert.pem\n tls_servername dns.quad9.net\n}",
    "forward example.org 192.0.2.1 {\n force_tcp\n policy sequential\n next NXDOMAIN REFUSED\n failfast_all_unhealthy_upstreams\n failover SERVFAIL\n}",
    "forward . https://9.9.9.9 https://1.1.1.1/dns-query%cloudflare-dns.com {\n doh_method GET\n max_idle_conns 8\n max_connect_attempts 2\n next_on_nodata\n read_timeout 1s\n}",
    "forward . tls://9.9.9.9%dns.quad9.net:10853",
    "forward . localhost:5353",
    "forward . 192.0.2.1\nforward example.org 192.0.2.2",
    "forward . 192.0.2.1 {\n expire 500ms\n}",
    "forward . 192.0.2.1 {\n expire 0s\n}",
    "forward . 192.0.2.1 {\n expire 2h\n}",
    "forward . 192.0.2.1 {\n max_idle_conns 0\n max_connect_attempts 0\n}",
    "header {\n response set ra aa\n response clear rd\n query set rd\n}",
    "health",
    "health localhost:8091",
    "health :8091 {\n lameduck 10s\n}",
    "hosts",
    "hosts hosts example.org {\n 192.0.2.1 www.example.org\n ttl 60\n no_reverse\n reload 5s\n fallthrough\n}",
    "hosts {\n 192.0.2.1 a.example.org b.example.org\n fallthrough example.org\n}",
    "hosts hosts {\n 192.168.1.10 *.example.com\n 192.168.1.11 www.example.com\n fallthrough example.com\n fallthrough_unsupported\n}",
    "k8s_external example.org\nkubernetes cluster.local",
    "k8s_external example.org {\n apex dns\n ttl 30\n headless\n fallthrough\n}\nkubernetes cluster.local",
    "kubernetes",
    "kubernetes cluster.local in-addr.arpa ip6.arpa {\n pods insecure\n fallthrough in-addr.arpa ip6.arpa\n ttl 30\n}",
    "kubernetes cluster.local {\n namespaces test staging\n labels environment in (staging, qa),application=nginx\n noendpoints\n}",
    "kubernetes cluster.local {\n labels \"environment in (staging, qa),application=nginx\"\n namespace_labels istio-injection=enabled\n endpoint_pod_names\n ignore empty_service\n}",
    "kubernetes cluster.local clusterset.local {\n multicluster clusterset.local\n zonal\n startup_timeout 10s\n apiserver_qps 10\n apiserver_burst 20\n}",
    "kubernetes cluster.local {\n endpoint https://192.0.2.1:6443\n tls cert.pem key.pem cert.pem\n}",
    "loadbalance",
    "loadbalance round_robin",
    "loadbalance weighted weights",
    "loadbalance weighted weights {\n reload 30s\n}",
    "loadbalance round_robin {\n limit_answers 5\n}",
    "loadbalance {\n prefer 10.9.20.0/24 10.9.30.0/24\n}",
    "local",
    "log",
    "log example.org",
    "log example.org example.net \"{common}\"",
    "log . \"{remote} - {>id} {type} {class} {name} {proto} {size} {>do} {>bufsize} {rcode} {>rflags} {rsize} {duration}\"",
    "log . {combined}",
    "log example.org {\n class denial error\n}",
    "log . {\n class error\n minDuration 1s\n}",
    "log . {\n class denial\n class success\n}",
    "loop",
    "metadata",
    "metadata example.org",
    "minimal",
    "multisocket",
    "multisocket 4",
    "nsid",
    "nsid Use The Force",
    "prometheus",
    "prometheus localhost:9253",
    "prometheus {\n runtime_metrics\n tls web-config.yml\n}",
    "ready",
    "ready localhost:8091",
    "reload",
    "reload 30s 15s",
    "reload 0s",
    "rewrite name exact coredns.rocks coredns.io",
    "rewrite name coredns.rocks coredns.io",
    "rewrite name prefix a- b-",
    "rewrite name substring -rocks -io",
    "rewrite name suffix .rocks .io answer auto",
    "rewrite name regex (.*)\\.(us-west-1)\\.coredns.rocks {1}.service.{2}.consul answer name (.*)\\.service\\.(us-west-1)\\.consul {1}.{2}.coredns.rocks",
    "rewrite stop {\n name regex (.*)\\.rocks {1}.io\n answer name (.*)\\.io {1}.rocks\n answer value (.*)\\.io {1}.rocks\n}",
    "rewrite type ANY HINFO",
    "rewrite continue class CH IN",
    "rewrite edns0 local set 0xffee 0x61626364",
    "rewrite edns0 local replace 0xffee abcd",
    "rewrite edns0 local set 0xffee {client_ip}",
    "rewrite edns0 local unset 0xffee",
    "rewrite edns0 nsid set",
    "rewrite edns0 subnet set 24 56",
    "rewrite edns0 subnet unset",
    "rewrite edns0 local set 0xffee 0x61626364 revert",
    "rewrite ttl regex (.*)\\.rocks 3600",
    "rewrite ttl example.com. 30-300",
    "rewrite continue ttl example.com 60-",
    "rewrite ttl example.com -60",
    "rewrite cname exact old.example. new.example.",
    "rewrite cname suffix .old. .new.",
    "rewrite rcode exact example.org NXDOMAIN NOERROR",
    "rewrite rcode regex (.*)\\.rocks 3 0",
    "root zones",
    "secondary example.org {\n transfer from 192.0.2.1 192.0.2.2\n}",
    "template IN A example.org {\n match ^ip-(?P<a>[0-9]+)\\.example\\.org\\.$\n answer \"{{ .Name }} 60 IN A 192.0.2.{{ .Group.a }}\"\n authority \"example.org. 60 IN NS ns.example.org.\"\n additional \"ns.example.org. 60 IN A 192.0.2.53\"\n upstream\n fallthrough\n}",
    "template ANY ANY {\n rcode NXDOMAIN\n}",
    "template IN HTTPS {\n rcode REFUSED\n ederror 15 \"not here\"\n}",
    "template IN A example.org {\n match ^ip0a(?P<b>[a-f0-9]{2})[.]example[.]org[.]$\n answer \"{{ $ip := parseInt .Group.b 16 8 }}{{ .Name }} 60 IN A 10.0.0.{{ $ip }}\"\n}",
    "timeouts {\n read 1m\n write 30s\n idle 5m\n}",
    "timeouts {\n maxtcpqueries 128\n}",
    "timeouts {\n maxtcpqueries -1\n}",
    "tls cert.pem key.pem",
    "tls cert.pem key.pem cert.pem {\n client_auth require_and_verify\n}",
    "tls cert.pem key.pem {\n client_auth request\n}",
    "tls cert.pem key.pem {\n client_auth require\n}",
    "transfer example.org {\n to *\n}\nfile zone example.org",
    "transfer {\n to 192.0.2.1 192.0.2.2:5353\n}\nfile zone example.org",
    "transfer {\n to 10.240.0.0/16\n to *\n}\nfile zone example.org",
    "transfer example.org {\n to *\n}\nkubernetes cluster.local\nk8s_external example.org",
    "tsig {\n secret key.example. c2VjcmV0\n require all\n}",
    "tsig example.org {\n secret key.example. c2VjcmV0\n require AXFR IXFR\n}",
    "tsig {\n secrets keys\n require none\n}",
    "tsig {\n secret key.example. c2VjcmV0\n require_opcode UPDATE NOTIFY\n}",
    "view v4 {\n expr incidr(client_ip(), '127.0.0.0/24') && type() in ['A', 'AAAA']\n}",
    "view v {\n expr name() matches '^client[0-9]+[.]example[.]org[.]$'\n}",
    "view v {\n expr id() % 2 == 0\n}",
    "view v {\n expr \"any(['10.0.0.0/8'], {incidr(client_ip(), #)})\"\n}",
    "view v {\n expr metadata('kubernetes/client-namespace') == 'default'\n}\nmetadata",
    "whoami",
];

#[tokio::test]
async fn lines_of_the_readmes_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write("cert.pem", &key.cert.pem());
    write("key.pem", &key.signing_key.serialize_pem());
    write(
        "zone",
        "@ 60 SOA ns hm 1 1 1 1 60\n@ 60 NS ns\nns 60 A 192.0.2.1\n",
    );
    write("hosts", "192.0.2.9 known.example.org\n");
    write("resolv.conf", "nameserver 192.0.2.1\nsearch example.org\n");
    write("weights", "www.example.org\n192.0.2.1 3\n192.0.2.2 1\n");
    write(
        "keys",
        "key \"key.example.\" {\n algorithm hmac-sha256;\n secret \"c2VjcmV0\";\n};\n",
    );
    write(
        "web-config.yml",
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n",
    );
    std::fs::create_dir(folder.path().join("zones")).unwrap();
    let mut refused = String::new();
    for lines in LINES {
        let mut environment = Environment::new(53);
        environment.clusters = Clusters::new(Some(common::api("")));
        let file = folder.path().join("Corefile");
        let text = format!("cluster.local. {{\n{lines}\n}}\n");
        if let Err(error) = Instance::build(&Arc::new(environment), &file, &text) {
            refused += &format!("{error}\n    {}\n", lines.replace('\n', "\n    "));
        }
    }
    assert!(refused.is_empty(), "{refused}");
}

/// Who made an answer, for who asks for it: object behind it and what is known of the request.
#[tokio::test]
async fn answers_say_what_is_behind_them() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("zone"),
        "@ SOA a b 7 2 3 4 5\nwww A 192.0.2.1\n",
    )
    .unwrap();
    let environment = Arc::new(Environment::new(53));
    let corefile = folder.path().join("Corefile");
    let shown = corefile.display();
    for (lines, name, origin, metadata) in [
        (
            "file zone example.org",
            "www.example.org.",
            "zone example.org. with serial 7".to_owned(),
            "",
        ),
        (
            "rewrite name old.test www.example.org\nfile zone example.org",
            "old.test.",
            "zone example.org. with serial 7".to_owned(),
            "rewrite/name www.example.org.",
        ),
        (
            "log\ntemplate IN A {\n answer \"a. 1 IN A 192.0.2.1\"\n}",
            "a.",
            format!("{shown}:3"),
            "",
        ),
        (
            "acl {\n block type A\n}\nwhoami",
            "a.",
            format!("{shown}:3"),
            "",
        ),
    ] {
        let text = format!(". {{\n{lines}\n}}\n");
        let instance = Arc::new(Instance::build(&environment, &corefile, &text).unwrap());
        let mut message = hickory_proto::op::Message::query();
        let name = hickory_proto::rr::Name::from_ascii(name).unwrap();
        message.add_query(hickory_proto::op::Query::query(
            name,
            hickory_proto::rr::RecordType::A,
        ));
        let raw = bytes::Bytes::from(message.to_vec().unwrap());
        let here = "127.0.0.1:53".parse().unwrap();
        let mut request = Request::new(message, raw, here, here, Transport::Udp);
        request.described = true;
        let listen = instance.listens().into_iter().next().unwrap();
        let Outcome::Answer(response) = instance.serve(&listen, &mut request).await else {
            panic!("{lines}: no answer");
        };
        assert_eq!(response.origin, Some(origin), "{lines}");
        let known: Vec<String> = request
            .metadata
            .iter()
            .map(|(k, v)| format!("{k} {v}"))
            .collect();
        assert_eq!(known.join(", "), metadata, "{lines}");
    }
}
