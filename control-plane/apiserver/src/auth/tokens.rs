//! Static tokens: files of lines `token,user,uid,"group1,group2"`, as kube-apiserver's `--token-auth-file`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use authorization::{MASTERS, User};
use base64::Engine as _;

use super::authenticated;
use crate::{Error, pki};

/// Known tokens. A table with keyed hashes: the time of a lookup says nothing about where two tokens differ.
pub(crate) struct Tokens {
    users: HashMap<String, Arc<User>>,
    admin: String,
    manager: String,
    proxy: String,
}

impl Tokens {
    /// Reads the server's own file, which is made with one token for the administrator where it is missing, and
    /// another file where one is named.
    pub(crate) fn load_or_make(path: &Path, more: Option<&Path>) -> Result<Self, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let text = format!(
                    "{},fairlead-admin,fairlead-admin,\"{MASTERS}\"\n",
                    secret()?
                );
                pki::write_private(path, text.as_bytes())?;
                text
            }
            Err(source) => return Err(Error::io("reading the tokens in", path, source)),
        };
        let mut users = HashMap::new();
        let own = parse(&text, path)?;
        let admin = own
            .iter()
            .find(|(_, user)| user.is(MASTERS))
            .map(|(token, _)| token.clone())
            .ok_or_else(|| {
                Error::damaged(path, &format!("no token in it is of the group {MASTERS}"))
            })?;
        let mut add = |token: String, user: User| {
            users
                .entry(token)
                .or_insert_with(|| Arc::new(authenticated(user)));
        };
        for (token, user) in own {
            add(token, user);
        }
        if let Some(path) = more {
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::io("reading the tokens in", path, source))?;
            for (token, user) in parse(&text, path)? {
                add(token, user);
            }
        }
        // Parts of this process. Their tokens are known to nobody else and end with it.
        let (manager, proxy) = (secret()?, secret()?);
        add(
            manager.clone(),
            User::new("system:kube-controller-manager", &[MASTERS]),
        );
        add(proxy.clone(), User::new("system:kube-proxy", &[]));
        Ok(Tokens {
            users,
            admin,
            manager,
            proxy,
        })
    }

    /// Whose token it is.
    pub(crate) fn user(&self, token: &str) -> Option<Arc<User>> {
        self.users.get(token).cloned()
    }

    /// The first token of the group `system:masters`.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// Of the controllers in this process, which collect garbage of every kind and so may do everything.
    pub(crate) fn manager(&self) -> &str {
        &self.manager
    }

    /// Of the proxy in this process.
    pub(crate) fn proxy(&self) -> &str {
        &self.proxy
    }
}

fn secret() -> Result<String, Error> {
    let mut secret = [0; 32];
    pki::random(&mut secret)?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret))
}

fn parse(text: &str, path: &Path) -> Result<Vec<(String, User)>, Error> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            parse_line(line).ok_or_else(|| {
                let why = format!(
                    "line {} is not `token,user,uid,\"group1,group2\"`",
                    index + 1
                );
                Error::damaged(path, &why)
            })
        })
        .collect()
}

fn parse_line(line: &str) -> Option<(String, User)> {
    let mut fields = line
        .splitn(4, ',')
        .map(|field| field.trim().trim_matches('"'));
    let token = fields.next().filter(|token| !token.is_empty())?;
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = fields.next()?;
    let groups: Vec<&str> = fields
        .next()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .collect();
    let user = User {
        uid: uid.to_owned(),
        ..User::new(name, &groups)
    };
    Some((token.to_owned(), user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_users() {
        let dir = tempfile::tempdir().unwrap();
        let (own, more) = (dir.path().join("own.csv"), dir.path().join("more.csv"));
        std::fs::write(&more, "# people\nt1,jane,u1,\"dev, ops\"\nt2,joe,u2\n\n").unwrap();
        let tokens = Tokens::load_or_make(&own, Some(&more)).unwrap();
        let jane = tokens.user("t1").unwrap();
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "u1"));
        assert_eq!(jane.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(tokens.user("t2").unwrap().groups, ["system:authenticated"]);
        assert!(tokens.user("t3").is_none() && tokens.user("").is_none());
        assert!(tokens.user(tokens.admin()).unwrap().is(MASTERS));
        let again = Tokens::load_or_make(&own, None).unwrap();
        assert_eq!(again.admin(), tokens.admin());
        assert_ne!(again.manager(), tokens.manager());
        for bad in ["t1", "t1,jane", ",jane,u", "t1,,u"] {
            std::fs::write(&more, bad).unwrap();
            let error = Tokens::load_or_make(&own, Some(&more))
                .map(|_| ())
                .unwrap_err();
            assert!(error.to_string().contains("line 1"), "{bad}: {error}");
        }
    }
}
