//! The kubeconfig file: which server, whom to trust, who we are.
//!
//! Format: `v1` Config of `client.config.k8s.io`. What needs a helper program (`exec`, `auth-provider`) or a
//! proxy (`proxy-url`) is refused by name rather than ignored.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

/// Everything needed to reach a server.
pub(crate) struct Settings {
    /// Scheme, authority and perhaps a path.
    pub(crate) server: Uri,
    pub(crate) trust: Trust,
    /// The name that the server's certificate must bear; absent means the server's host.
    pub(crate) server_name: Option<String>,
    /// Certificates, leaf first, and the leaf's key.
    pub(crate) identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    pub(crate) login: Login,
    /// The namespace for objects that name none.
    pub(crate) namespace: String,
}

/// Whose certificates are believed.
pub(crate) enum Trust {
    Roots(Vec<CertificateDer<'static>>),
    /// The bundle that the operating system keeps.
    System,
    /// `insecure-skip-tls-verify`.
    Anyone,
}

/// What goes into the `Authorization` header.
#[derive(PartialEq, Debug)]
pub(crate) enum Login {
    Nothing,
    Token(String),
    TokenFile(PathBuf),
    Basic { username: String, password: String },
}

/// Why a kubeconfig cannot be used. Every message names the file and the field.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The file cannot be read.
    #[error("kubeconfig {}: cannot be read", path.display())]
    Read {
        /// The kubeconfig.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no YAML, or no kubeconfig.
    #[error("kubeconfig {}: not a kubeconfig", path.display())]
    Parse {
        /// The kubeconfig.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// A field holds what cannot be used.
    #[error("kubeconfig {}: {field}: {problem}", path.display())]
    Field {
        /// The kubeconfig.
        path: PathBuf,
        /// The field, for instance `clusters[kind].cluster.server`.
        field: String,
        /// What is wrong with it, and where possible what would be right.
        problem: String,
    },
    /// There is no kubeconfig, and this is no pod.
    #[error(
        "no kubeconfig was given and {missing} is not there, as it is inside a pod; give --kubeconfig FILE"
    )]
    NoCluster {
        /// What a pod would have.
        missing: String,
    },
    /// The TLS settings contradict each other.
    #[error("kubeconfig {}: TLS cannot be set up", path.display())]
    Tls {
        /// The kubeconfig.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

impl Settings {
    /// Reads a kubeconfig and resolves one of its contexts, or the current one.
    pub(crate) fn read(path: &Path, context: Option<&str>) -> Result<Settings, KubeconfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| KubeconfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Settings::parse(&text, path, context)
    }

    /// As [`Settings::read`]; `path` is for messages and for files named relative to it.
    pub(crate) fn parse(
        text: &str,
        path: &Path,
        context: Option<&str>,
    ) -> Result<Settings, KubeconfigError> {
        let mut config: Config =
            serde_saphyr::from_str(text).map_err(|source| KubeconfigError::Parse {
                path: path.to_owned(),
                source: Box::new(source),
            })?;
        if let Some(context) = context {
            config.current_context = context.to_owned();
        }
        Resolver { path }.resolve(config)
    }

    /// A server by its address; `tls` names files: our certificate, its key, and whose certificates are believed.
    pub(crate) fn endpoint(
        url: &str,
        tls: Option<[&Path; 3]>,
    ) -> Result<Settings, KubeconfigError> {
        let [certificate, key, authority] = match tls {
            Some(files) => files.map(|file| Some(file.to_owned())),
            None => [None, None, None],
        };
        let config = Config {
            current_context: url.to_owned(),
            clusters: vec![NamedCluster {
                name: url.to_owned(),
                cluster: Cluster {
                    server: url.to_owned(),
                    certificate_authority: authority,
                    ..Cluster::default()
                },
            }],
            contexts: vec![NamedContext {
                name: url.to_owned(),
                context: Context {
                    cluster: url.to_owned(),
                    user: url.to_owned(),
                    namespace: String::new(),
                },
            }],
            users: vec![NamedUser {
                name: url.to_owned(),
                user: User {
                    client_certificate: certificate,
                    client_key: key,
                    ..User::default()
                },
            }],
        };
        Resolver {
            path: Path::new(url),
        }
        .resolve(config)
    }

    /// What every pod finds mounted.
    pub(crate) fn in_cluster() -> Result<Settings, KubeconfigError> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| KubeconfigError::NoCluster {
                missing: format!("the environment variable {name}"),
            })
        };
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        Settings::mounted(
            &format!("https://{host}:{port}"),
            Path::new(SERVICE_ACCOUNT),
        )
    }

    fn mounted(server: &str, directory: &Path) -> Result<Settings, KubeconfigError> {
        let token = directory.join("token");
        if !token.exists() {
            return Err(KubeconfigError::NoCluster {
                missing: token.display().to_string(),
            });
        }
        let resolver = Resolver {
            path: &directory.join("ca.crt"),
        };
        let namespace = std::fs::read_to_string(directory.join("namespace"));
        Ok(Settings {
            server: resolver.server("KUBERNETES_SERVICE_HOST", server)?,
            trust: Trust::Roots(resolver.certificates(
                "ca.crt",
                &resolver.file("ca.crt", &directory.join("ca.crt"))?,
            )?),
            server_name: None,
            identity: None,
            login: Login::TokenFile(token),
            namespace: namespace.map_or_else(|_| "default".into(), |text| text.trim().to_owned()),
        })
    }
}

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Config {
    current_context: String,
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

/// Turns names into values and says which field was at fault.
struct Resolver<'a> {
    path: &'a Path,
}

impl Resolver<'_> {
    fn resolve(&self, config: Config) -> Result<Settings, KubeconfigError> {
        let context = match config.current_context.as_str() {
            "" => {
                return Err(self.fault(
                    "current-context",
                    "is not set; kubectl config use-context sets it",
                ));
            }
            name => self.find(
                "current-context",
                name,
                "contexts",
                config.contexts,
                |named| (named.name, named.context),
            )?,
        };
        let at = format!("contexts[{}].context", config.current_context);
        let cluster = self.find(
            &format!("{at}.cluster"),
            &context.cluster,
            "clusters",
            config.clusters,
            |named| (named.name, named.cluster),
        )?;
        let user = match context.user.as_str() {
            "" => User::default(),
            name => self.find(
                &format!("{at}.user"),
                name,
                "users",
                config.users,
                |named| (named.name, named.user),
            )?,
        };
        let cluster_at = format!("clusters[{}].cluster", context.cluster);
        let user_at = format!("users[{}].user", context.user);

        if cluster.proxy_url.is_some_and(|url| !url.is_empty()) {
            return Err(self.fault(
                &format!("{cluster_at}.proxy-url"),
                "proxies are not supported",
            ));
        }
        for (present, field) in [
            (user.exec.is_some(), "exec"),
            (user.auth_provider.is_some(), "auth-provider"),
        ] {
            if present {
                return Err(self.fault(
                    &format!("{user_at}.{field}"),
                    "helper programs are not supported; use a token, a tokenFile or a client certificate",
                ));
            }
        }

        let server_at = format!("{cluster_at}.server");
        let server = self.server(&server_at, &cluster.server)?;
        let authority = self.material(
            &format!("{cluster_at}.certificate-authority"),
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        let trust = match (cluster.insecure_skip_tls_verify, authority) {
            (true, Some(_)) => {
                return Err(self.fault(
                    &format!("{cluster_at}.insecure-skip-tls-verify"),
                    "cannot be true beside a certificate-authority; remove one of them",
                ));
            }
            (true, None) => Trust::Anyone,
            (false, Some((field, pem))) => Trust::Roots(self.certificates(&field, &pem)?),
            (false, None) => Trust::System,
        };
        Ok(Settings {
            server,
            trust,
            server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
            identity: self.identity(&user_at, &user)?,
            login: self.login(&user_at, user)?,
            namespace: match context.namespace.as_str() {
                "" => "default".to_owned(),
                namespace => namespace.to_owned(),
            },
        })
    }

    fn find<N, V>(
        &self,
        field: &str,
        wanted: &str,
        list: &str,
        entries: Vec<N>,
        split: impl Fn(N) -> (String, V),
    ) -> Result<V, KubeconfigError> {
        let mut names = Vec::new();
        for entry in entries {
            let (name, value) = split(entry);
            if name == wanted {
                return Ok(value);
            }
            names.push(name);
        }
        let there = match names.as_slice() {
            [] => format!("{list} is empty"),
            names => format!("{list} has {}", names.join(", ")),
        };
        Err(self.fault(field, &format!("names \"{wanted}\", but {there}")))
    }

    fn server(&self, field: &str, server: &str) -> Result<Uri, KubeconfigError> {
        if server.is_empty() {
            return Err(self.fault(
                field,
                "is not set; it is an address such as https://10.0.0.1:6443",
            ));
        }
        let text = match server.contains("://") {
            true => server.to_owned(),
            false => format!("https://{server}"),
        };
        let wrong = |problem: &str| self.fault(field, &format!("\"{server}\" {problem}"));
        let uri: Uri = text
            .trim_end_matches('/')
            .parse()
            .map_err(|error| wrong(&format!("is not a URL: {error}")))?;
        match uri.scheme_str() {
            Some("https" | "http") => {}
            _ => return Err(wrong("must begin with https:// or http://")),
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(wrong("names no host"));
        }
        Ok(uri)
    }

    /// Client certificate and key, which come together or not at all.
    #[allow(clippy::type_complexity, reason = "the pair is what rustls asks for")]
    fn identity(
        &self,
        at: &str,
        user: &User,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, KubeconfigError>
    {
        let certificate = self.material(
            &format!("{at}.client-certificate"),
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
        )?;
        let key = self.material(
            &format!("{at}.client-key"),
            user.client_key_data.as_deref(),
            user.client_key.as_deref(),
        )?;
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some((field, _)), None) => Err(self.fault(&field, "is set, but client-key is not")),
            (None, Some((field, _))) => {
                Err(self.fault(&field, "is set, but client-certificate is not"))
            }
            (Some((certificate_field, certificate)), Some((key_field, key))) => {
                let chain = self.certificates(&certificate_field, &certificate)?;
                let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
                    self.fault(&key_field, &format!("holds no private key in PEM: {error}"))
                })?;
                Ok(Some((chain, key)))
            }
        }
    }

    /// A token file wins over a token, as client-go has it: the file is what is kept fresh.
    fn login(&self, at: &str, user: User) -> Result<Login, KubeconfigError> {
        let absent = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
        if let Some(file) = user.token_file.filter(|file| !file.as_os_str().is_empty()) {
            let file = self.beside(&file);
            self.file(&format!("{at}.tokenFile"), &file)?;
            return Ok(Login::TokenFile(file));
        }
        if !absent(&user.token) {
            return Ok(Login::Token(user.token.unwrap_or_default()));
        }
        if absent(&user.username) {
            return Ok(Login::Nothing);
        }
        Ok(Login::Basic {
            username: user.username.unwrap_or_default(),
            password: user.password.unwrap_or_default(),
        })
    }

    /// What stands in `FIELD-data`, or in the file that `FIELD` names; with the name of the one that was taken.
    fn material(
        &self,
        field: &str,
        data: Option<&str>,
        file: Option<&Path>,
    ) -> Result<Option<(String, Vec<u8>)>, KubeconfigError> {
        if let Some(data) = data.filter(|data| !data.is_empty()) {
            let field = format!("{field}-data");
            let joined: String = data.split_whitespace().collect();
            let bytes = STANDARD
                .decode(joined)
                .map_err(|error| self.fault(&field, &format!("is not base64: {error}")))?;
            return Ok(Some((field, bytes)));
        }
        match file.filter(|file| !file.as_os_str().is_empty()) {
            Some(file) => Ok(Some((
                field.to_owned(),
                self.file(field, &self.beside(file))?,
            ))),
            None => Ok(None),
        }
    }

    fn file(&self, field: &str, file: &Path) -> Result<Vec<u8>, KubeconfigError> {
        std::fs::read(file)
            .map_err(|error| self.fault(field, &format!("cannot read {}: {error}", file.display())))
    }

    fn certificates(
        &self,
        field: &str,
        pem: &[u8],
    ) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(self.fault(field, "holds no certificate in PEM"))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(self.fault(field, &format!("holds no certificate in PEM: {error}"))),
        }
    }

    /// Files are named relative to the kubeconfig.
    fn beside(&self, file: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    fn fault(&self, field: &str, problem: &str) -> KubeconfigError {
        KubeconfigError::Field {
            path: self.path.to_owned(),
            field: field.to_owned(),
            problem: problem.to_owned(),
        }
    }
}
