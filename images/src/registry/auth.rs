//! Proving to one endpoint who is asking: nothing, basic, or a bearer token.
//!
//! Nothing is sent before the registry asks (RFC 9110, section 11). A bearer
//! challenge is answered as the distribution project's token specification
//! says, with the scope `repository:NAME:pull` and no more. Several downloads
//! share one state: when a token runs out, the first to notice renews it and
//! the others take the new one.

use base64::Engine as _;
use reqwest::Url;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::config::{Endpoint, is_loopback};
use super::error::{FailureKind, RequestError};
use super::http::{Http, Request, authority};
use super::reach::Reach;
use crate::credentials::{self, Credential, Secret};

const MAX_TOKEN_ANSWER: usize = 1 << 20;

/// The state for one endpoint and repository.
#[derive(Default)]
pub(crate) struct Auth {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    header: Option<HeaderValue>,
    /// Counts the headers there have been, so that one is renewed only once.
    generation: u64,
    /// Looked up at the first challenge: `None` not yet, `Some(None)` there are none.
    credential: Option<Option<(Credential, String)>>,
}

/// A header to send, and which one it is.
#[derive(Clone)]
pub(crate) struct Current {
    pub header: Option<HeaderValue>,
    generation: u64,
}

/// A challenge that can be answered.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Auth {
    /// With this credential, instead of those that the configuration leads to.
    pub fn with(credential: Credential, source: &str) -> Auth {
        Auth {
            state: Mutex::new(State {
                credential: Some(Some((credential, source.to_owned()))),
                ..State::default()
            }),
        }
    }

    /// What to send now.
    pub async fn current(&self) -> Current {
        let state = self.state.lock().await;
        Current {
            header: state.header.clone(),
            generation: state.generation,
        }
    }

    /// Answers the challenge in `headers`, which came after `used` was sent.
    /// `reach` bounds where the token server may be. Returns false when there
    /// is nothing better to send than what was refused.
    pub async fn renew(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        used: &Current,
        scheme: &str,
        reach: Reach,
    ) -> Result<bool, RequestError> {
        let mut state = self.state.lock().await;
        if state.generation != used.generation {
            return Ok(true);
        }
        let Some(challenge) = challenge(headers) else {
            return Ok(false);
        };
        let credential = match &state.credential {
            Some(known) => known.clone(),
            None => {
                let found = look_up(http, endpoint).await?;
                state.credential = Some(found.clone());
                found
            }
        };
        let header = match challenge {
            Challenge::Basic => match credential {
                Some((Credential::Password { username, password }, _)) => {
                    Some(basic(&username, &password))
                }
                _ => None,
            },
            Challenge::Bearer { .. } if matches!(credential, Some((Credential::Bearer(_), _))) => {
                match credential {
                    Some((Credential::Bearer(token), _)) => Some(bearer(&token)?),
                    _ => None,
                }
            }
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                let realm = realm_url(http, &realm, scheme)?;
                let mut scopes = match endpoint.repository.as_str() {
                    "" => Vec::new(),
                    repository => vec![format!("repository:{repository}:pull")],
                };
                scopes.extend(scope.filter(|s| foreign_scope(s)));
                let ask = Ask {
                    realm,
                    service,
                    scopes,
                    reach,
                };
                Some(token(http, ask, credential.as_ref().map(|(c, _)| c)).await?)
            }
        };
        // The same again would be refused again.
        if header.is_none() || (header == state.header && used.header.is_some()) {
            return Ok(false);
        }
        state.header = header;
        state.generation += 1;
        Ok(true)
    }

    /// Where the credentials in use came from, for a message about their refusal.
    pub async fn source(&self) -> Option<String> {
        let state = self.state.lock().await;
        let (_, source) = state.credential.as_ref()?.as_ref()?;
        Some(source.clone())
    }

    /// `text` without what is secret here, should a registry send it back.
    pub async fn scrub(&self, text: String) -> String {
        let state = self.state.lock().await;
        let mut secrets: Vec<&str> = Vec::new();
        if let Some(header) = &state.header {
            let value = header.to_str().unwrap_or_default();
            secrets.extend(value.split_once(' ').map(|(_, secret)| secret));
        }
        match state.credential.as_ref().and_then(Option::as_ref) {
            Some((Credential::Password { password, .. }, _)) => secrets.push(password.expose()),
            Some((Credential::Identity(token) | Credential::Bearer(token), _)) => {
                secrets.push(token.expose());
            }
            None => {}
        }
        secrets
            .into_iter()
            .filter(|secret| !secret.is_empty())
            .fold(text, |text, secret| text.replace(secret, "(secret)"))
    }
}

/// Files and helpers block, so off the runtime's thread.
async fn look_up(
    http: &Http,
    endpoint: &Endpoint,
) -> Result<Option<(Credential, String)>, RequestError> {
    let sources = http.config().credentials.clone();
    let (name, repository) = (endpoint.name.clone(), endpoint.repository.clone());
    let found =
        tokio::task::spawn_blocking(move || credentials::lookup(&sources, &name, &repository))
            .await;
    match found {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(e)) => Err(RequestError::new(FailureKind::Credentials, e.to_string())),
        Err(_) => Err(RequestError::new(
            FailureKind::Credentials,
            "reading the credentials failed",
        )),
    }
}

/// The best challenge among those offered; bearer before basic.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(value) = value.to_str() else { continue };
        let Ok(challenges) = http_auth::parse_challenges(value) else {
            continue;
        };
        for offered in challenges {
            if offered.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            } else if offered.scheme.eq_ignore_ascii_case("bearer") {
                let param = |name: &str| {
                    let found = offered.params.iter();
                    let mut found = found.filter(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.next().map(|(_, value)| value.to_unescaped())
                };
                if let Some(realm) = param("realm") {
                    return Some(Challenge::Bearer {
                        realm,
                        service: param("service"),
                        scope: param("scope"),
                    });
                }
            }
        }
    }
    basic
}

/// A scope that is no repository's: some registries want theirs (`aws`). One
/// that names repositories is not passed on: ours says all that a pull needs.
fn foreign_scope(scope: &str) -> bool {
    !scope.is_empty() && scope.len() <= 200 && !scope.contains("repository:")
}

/// The token server, which must be as well protected as the registry.
fn realm_url(http: &Http, realm: &str, scheme: &str) -> Result<Url, RequestError> {
    let refuse = |why: &str| {
        let message = format!("the registry names a token server that cannot be used: {why}");
        RequestError::new(FailureKind::Redirect, message)
    };
    let url = Url::parse(realm).map_err(|_| refuse("not an address"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("its address has a user name"));
    }
    let host = authority(&url);
    match url.scheme() {
        "https" => Ok(url),
        "http" if scheme == "http" && (is_loopback(&host) || http.config().is_insecure(&host)) => {
            Ok(url)
        }
        "http" => Err(refuse("it is plain http")),
        _ => Err(refuse("it is not http")),
    }
}

struct Ask {
    realm: Url,
    service: Option<String>,
    scopes: Vec<String>,
    reach: Reach,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// Fetches a token: GET with basic credentials or none, or POST with a refresh token.
async fn token(
    http: &Http,
    ask: Ask,
    credential: Option<&Credential>,
) -> Result<HeaderValue, RequestError> {
    let host = authority(&ask.realm);
    let mut request = Request {
        url: ask.realm,
        headers: HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]),
        authorization: None,
        reach: ask.reach,
        form: None,
    };
    if let Some(Credential::Identity(refresh)) = credential {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "podspawn")
            .append_pair("scope", &ask.scopes.join(" "))
            .append_pair("refresh_token", refresh.expose());
        if let Some(service) = &ask.service {
            form.append_pair("service", service);
        }
        request.form = Some(form.finish());
    } else {
        let mut query = request.url.query_pairs_mut();
        if let Some(service) = &ask.service {
            query.append_pair("service", service);
        }
        for scope in &ask.scopes {
            query.append_pair("scope", scope);
        }
        drop(query);
        if let Some(Credential::Password { username, password }) = credential {
            request.authorization = Some(basic(username, password));
        }
    }
    let answer = http.send(request).await?;
    if !answer.response.status().is_success() {
        let mut error = http.failure(answer).await;
        // 403 and 400 from a token server are refusals of the credentials too.
        if matches!(error.kind, FailureKind::Denied | FailureKind::Protocol) {
            error.kind = FailureKind::Unauthorized;
        }
        error.message = format!("the token server {}", error.message);
        return Err(error);
    }
    let body = http
        .read(&host, answer.response, MAX_TOKEN_ANSWER, "token")
        .await?;
    // The parser's message is dropped: it would quote what may be the token.
    let wrong = || {
        let message = format!("the token server {host} answered without a token");
        RequestError::new(FailureKind::Protocol, message)
    };
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| wrong())?;
    match (answer.token, answer.access_token) {
        (token, _) if !token.is_empty() => bearer(&Secret::new(token)),
        (_, token) if !token.is_empty() => bearer(&Secret::new(token)),
        _ => Err(wrong()),
    }
}

fn basic(username: &str, password: &Secret) -> HeaderValue {
    let plain = format!("{username}:{}", password.expose());
    let encoded = base64::engine::general_purpose::STANDARD.encode(plain);
    let mut header = HeaderValue::from_maybe_shared(format!("Basic {encoded}"))
        .unwrap_or(HeaderValue::from_static("Basic"));
    header.set_sensitive(true);
    header
}

fn bearer(token: &Secret) -> Result<HeaderValue, RequestError> {
    let mut header =
        HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_| {
            RequestError::new(
                FailureKind::Protocol,
                "the token has characters that cannot be sent",
            )
        })?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(values: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        challenge(&headers)
    }

    #[test]
    fn bearer_is_preferred_and_unknown_schemes_are_passed_over() {
        let bearer = Challenge::Bearer {
            realm: "https://t.x/token".into(),
            service: Some("s, \"x\"".into()),
            scope: None,
        };
        assert_eq!(
            parsed(&[r#"Basic realm="r", BEARER Realm="https://t.x/token",service="s, \"x\"""#,]),
            Some(bearer)
        );
        assert_eq!(
            parsed(&["Negotiate", "basic realm=\"r\""]),
            Some(Challenge::Basic)
        );
        assert_eq!(parsed(&["Bearer service=\"x\""]), None);
        assert_eq!(parsed(&["\"", "Digest realm=\"x\""]), None);
        assert_eq!(parsed(&[]), None);
    }

    #[test]
    fn only_scopes_that_grant_nothing_are_passed_on() {
        assert!(foreign_scope("aws"));
        for scope in [
            "",
            "repository:secret/other:pull,push",
            "aws repository:x:push",
        ] {
            assert!(!foreign_scope(scope), "{scope}");
        }
    }

    #[test]
    fn headers_do_not_show_what_they_carry() {
        let header = basic("alice", &Secret::new("hunter2"));
        assert!(!format!("{header:?}").contains("YWxpY2U6aHVudGVyMg"));
        assert_eq!(header, "Basic YWxpY2U6aHVudGVyMg==");
        let error = bearer(&Secret::new("hun\nter2")).unwrap_err();
        assert!(!format!("{error:?}").contains("ter2"));
    }

    proptest::proptest! {
        #[test]
        fn no_challenge_is_too_odd(value in "(Bearer|Basic|,| |=|\"|\\\\|realm|scope|[ -~]){0,40}") {
            if let Ok(value) = HeaderValue::from_str(&value) {
                let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]);
                if let Some(Challenge::Bearer { realm, .. }) = challenge(&headers) {
                    let http = Http::new(Default::default(), Default::default()).unwrap();
                    if let Ok(url) = realm_url(&http, &realm, "https") {
                        proptest::prop_assert_eq!(url.scheme(), "https");
                    }
                }
            }
        }
    }
}
