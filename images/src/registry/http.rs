//! HTTP as a registry client needs it: GET (and one POST), with redirects,
//! addresses, waits and sizes under our own rules.
//!
//! Redirects are followed here and not by reqwest, because each hop has to be
//! judged: never from https to http, never with credentials to another origin,
//! never to a loopback or private address that the registry is not itself on.
//! Names are judged after they are resolved, by the resolver that the
//! connection then uses, so that a name cannot change its mind in between.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Response, Url};
use tokio::time::{Instant, timeout, timeout_at};

use super::config::{RegistryConfig, Timeouts, is_loopback};
use super::error::{AddressRefused, FailureKind, RequestError, Unresolved, message_of, of_status};
use super::reach::Reach;
use super::retry::retry_after;
use super::tls::{self, Trust};

/// Registries redirect once or twice.
const MAX_REDIRECTS: u32 = 6;

/// Of an error's body no more is read.
const MAX_ERROR_BODY: usize = 64 << 10;

/// HTTP clients, made when first needed: one for each way of trusting and reaching.
pub(crate) struct Http {
    config: RegistryConfig,
    timeouts: Timeouts,
    proxies: Matcher,
    clients: Mutex<HashMap<Profile, reqwest::Client>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Profile {
    trust: Trust,
    reach: Reach,
    proxied: bool,
}

/// The answer to a request, after redirects.
pub(crate) struct Answer {
    pub response: Response,
    /// Where it came from, for messages.
    pub host: String,
    /// Whether a redirect left the origin that was asked.
    pub elsewhere: bool,
    /// What else the asked host may refer to.
    pub reach: Reach,
}

/// What to send.
pub(crate) struct Request {
    pub url: Url,
    pub headers: HeaderMap,
    pub authorization: Option<HeaderValue>,
    /// What the first address may be; redirects are narrowed further.
    pub reach: Reach,
    /// A form to POST; redirects are not followed then.
    pub form: Option<String>,
}

impl Http {
    pub fn new(config: RegistryConfig, timeouts: Timeouts) -> Result<Self, RequestError> {
        let proxy = &config.proxy;
        for address in [&proxy.http, &proxy.https].into_iter().flatten() {
            let plain = address.starts_with("http://") || address.starts_with("https://");
            if !plain && address.contains("://") {
                // Not quoted: it may hold a password.
                let message = "a proxy must be an http:// or https:// address";
                return Err(RequestError::new(FailureKind::Config, message));
            }
        }
        let proxies = Matcher::builder()
            .http(proxy.http.clone().unwrap_or_default())
            .https(proxy.https.clone().unwrap_or_default())
            .no(proxy.no_proxy.clone().unwrap_or_default())
            .build();
        Ok(Self {
            config,
            timeouts,
            proxies,
            clients: Mutex::default(),
        })
    }

    pub fn config(&self) -> &RegistryConfig {
        &self.config
    }

    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Sends `request` and follows redirects. The answer may have any status
    /// that is not a redirect.
    pub async fn send(&self, request: Request) -> Result<Answer, RequestError> {
        let origin = request.url.clone();
        let mut url = request.url;
        let mut reach = request.reach;
        let mut authorization = request.authorization;
        let mut elsewhere = false;
        for hop in 0..=MAX_REDIRECTS {
            let host = authority(&url);
            self.check_address(&url, reach)?;
            let client = self.client(&url, reach)?;
            let mut builder = match &request.form {
                Some(form) => client
                    .post(url.clone())
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form.clone()),
                None => client.get(url.clone()),
            };
            builder = builder.headers(request.headers.clone());
            if let Some(value) = &authorization {
                let mut value = value.clone();
                value.set_sensitive(true);
                builder = builder.header(AUTHORIZATION, value);
            }
            let wait = self.timeouts.connect + self.timeouts.response;
            let response = match timeout(wait, builder.send()).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(RequestError::transport(&host, &error)),
                Err(_) => return Err(RequestError::stalled(&host, "no answer", wait)),
            };
            if hop == 0 && request.reach == Reach::ANYWHERE {
                reach = self.reach_of(&url, &response);
            }
            let Some(target) = redirect_target(&url, &response)? else {
                return Ok(Answer {
                    response,
                    host,
                    elsewhere,
                    reach,
                });
            };
            if request.form.is_some() {
                let message = format!("{host} redirects where it must not");
                return Err(RequestError::new(FailureKind::Redirect, message));
            }
            self.check_scheme(&url, &target)?;
            if target.origin() != origin.origin() {
                elsewhere = true;
            }
            if elsewhere {
                // Once gone it stays gone, though a later hop lead back.
                authorization = None;
            }
            self.drain(&host, response).await;
            url = target;
        }
        let message = format!(
            "{} redirects more than {MAX_REDIRECTS} times",
            authority(&origin)
        );
        Err(RequestError::new(FailureKind::Redirect, message))
    }

    fn check_scheme(&self, from: &Url, to: &Url) -> Result<(), RequestError> {
        let (host, target) = (authority(from), authority(to));
        let refuse = |why: &str| {
            let message = format!("refused to follow {host} to {target}: {why}");
            Err(RequestError::new(FailureKind::Redirect, message))
        };
        match to.scheme() {
            "https" => Ok(()),
            "http" if from.scheme() == "https" => refuse("that is from https to plain http"),
            "http" if is_loopback(&target) || self.insecure(to) => Ok(()),
            "http" => refuse("it is plain http and not configured as insecure"),
            other => refuse(&format!("{} is not http", super::error::visible(other, 20))),
        }
    }

    /// Addresses that are spelled out; names are checked when they are resolved.
    fn check_address(&self, url: &Url, reach: Reach) -> Result<(), RequestError> {
        let refused = match url.host() {
            Some(url::Host::Ipv4(ip)) => !reach.allows(IpAddr::V4(ip)),
            Some(url::Host::Ipv6(ip)) => !reach.allows(IpAddr::V6(ip)),
            Some(url::Host::Domain(_)) => false,
            None => true,
        };
        if refused && !self.known(url) {
            let message = AddressRefused(authority(url)).to_string();
            return Err(RequestError::new(FailureKind::Redirect, message));
        }
        Ok(())
    }

    /// What the host at `url`, named by the user, may refer to.
    fn reach_of(&self, url: &Url, response: &Response) -> Reach {
        let literal = match url.host() {
            Some(url::Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(url::Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
            _ => None,
        };
        match self.proxied(url) {
            // The peer is the proxy, and says nothing about the registry.
            true => Reach::from(literal),
            false => Reach::from(literal.or(response.remote_addr().map(|a| a.ip()))),
        }
    }

    fn known(&self, url: &Url) -> bool {
        names(url).iter().any(|name| self.config.is_known(name))
    }

    fn insecure(&self, url: &Url) -> bool {
        names(url).iter().any(|name| self.config.is_insecure(name))
    }

    fn proxied(&self, url: &Url) -> bool {
        let uri = url.as_str().parse::<http::Uri>();
        !is_loopback(&authority(url)) && uri.is_ok_and(|uri| self.proxies.intercept(&uri).is_some())
    }

    fn client(&self, url: &Url, reach: Reach) -> Result<reqwest::Client, RequestError> {
        let proxied = self.proxied(url);
        let dir = || tls::directory(&self.config.cert_dirs, &names(url));
        let trust = match url.scheme() {
            // To a proxy that is itself reached by https.
            "http" if proxied => Trust::System,
            "http" => Trust::Nothing,
            _ if self.insecure(url) => Trust::Anybody(dir()),
            _ => dir().map_or(Trust::System, Trust::Directory),
        };
        let reach = match proxied || self.known(url) {
            true => Reach::ANYWHERE,
            false => reach,
        };
        let profile = Profile {
            trust,
            reach,
            proxied,
        };
        let mut clients = self.clients.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(client) = clients.get(&profile) {
            return Ok(client.clone());
        }
        let client = self.build(&profile)?;
        clients.insert(profile, client.clone());
        Ok(client)
    }

    fn build(&self, profile: &Profile) -> Result<reqwest::Client, RequestError> {
        let unusable = |e: reqwest::Error| {
            let message = format!("the HTTP client cannot be set up: {}", e.without_url());
            RequestError::new(FailureKind::Config, message)
        };
        let mut builder = reqwest::Client::builder()
            // Proxies come from the configuration, never from the environment.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(&self.config.user_agent)
            .connect_timeout(self.timeouts.connect)
            .pool_idle_timeout(Duration::from_secs(30))
            .tls_backend_preconfigured(tls::client_config(
                &profile.trust,
                &self.config.ca_bundles,
            )?);
        if profile.proxied {
            let proxy = &self.config.proxy;
            if let Some(address) = &proxy.http {
                builder = builder.proxy(reqwest::Proxy::http(address).map_err(unusable)?);
            }
            if let Some(address) = &proxy.https {
                builder = builder.proxy(reqwest::Proxy::https(address).map_err(unusable)?);
            }
        } else {
            builder = builder.dns_resolver(Guard(profile.reach));
        }
        builder.build().map_err(unusable)
    }

    /// Reads a short body that nobody wants, so that the connection can be used
    /// again.
    pub async fn drain(&self, host: &str, response: Response) {
        let short = |length| length <= MAX_ERROR_BODY as u64;
        if response.content_length().is_some_and(short) {
            let _ = self.read(host, response, MAX_ERROR_BODY, "message").await;
        }
    }

    /// The failure that an answer with an unwelcome status stands for.
    pub async fn failure(&self, answer: Answer) -> RequestError {
        let Answer { response, host, .. } = answer;
        let status = response.status().as_u16();
        let wait = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        let said = match self.read(&host, response, MAX_ERROR_BODY, "message").await {
            Ok(body) => message_of(&body),
            Err(_) => String::new(),
        };
        of_status(&host, status, &said, wait)
    }

    /// The whole body, at most `max` bytes of it, within the time for a document.
    pub async fn read(
        &self,
        host: &str,
        mut response: Response,
        max: usize,
        what: &str,
    ) -> Result<Vec<u8>, RequestError> {
        let too_large = || {
            let message = format!("{host} sends a {what} of more than the {max} bytes allowed");
            Err(RequestError::new(FailureKind::TooLarge, message))
        };
        if response.content_length().is_some_and(|n| n > max as u64) {
            return too_large();
        }
        let deadline = Instant::now() + self.timeouts.document;
        let mut body = Vec::new();
        loop {
            let stall = Instant::now() + self.timeouts.stall;
            match timeout_at(stall.min(deadline), response.chunk()).await {
                Ok(Ok(Some(chunk))) if body.len() + chunk.len() > max => return too_large(),
                Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ok(body),
                Ok(Err(error)) => return Err(RequestError::transport(host, &error)),
                Err(_) => {
                    let waited = self.timeouts.stall.min(self.timeouts.document);
                    let what = format!("the {what} did not come");
                    return Err(RequestError::stalled(host, &what, waited));
                }
            }
        }
    }
}

/// Where `response` redirects to, if it does.
fn redirect_target(url: &Url, response: &Response) -> Result<Option<Url>, RequestError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let wrong = || {
        let message = format!("{} redirects to no usable address", authority(url));
        RequestError::new(FailureKind::Redirect, message)
    };
    let location = response.headers().get(LOCATION).ok_or_else(wrong)?;
    let location = std::str::from_utf8(location.as_bytes()).map_err(|_| wrong())?;
    let target = url.join(location).map_err(|_| wrong())?;
    // A user name in it would be sent as credentials.
    if !target.username().is_empty() || target.password().is_some() {
        return Err(wrong());
    }
    Ok(Some(target))
}

/// `host[:port]`, as messages and references write it; never path or query.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The names that configuration and `certs.d` may have for the host of `url`:
/// a scheme's own port may be written or not.
fn names(url: &Url) -> Vec<String> {
    let mut names = vec![authority(url)];
    if let (None, Some(host), Some(port)) =
        (url.port(), url.host_str(), url.port_or_known_default())
    {
        names.push(format!("{host}:{port}"));
    }
    if names[0] == "registry-1.docker.io" {
        names.push(crate::reference::DEFAULT_REGISTRY.to_owned());
    }
    names
}

/// Resolves names, and drops the addresses that may not be reached.
struct Guard(Reach);

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map_err(|e| Unresolved(e.to_string()))?
                .collect();
            let any = !found.is_empty();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|a| reach.allows(a.ip())).collect();
            if any && allowed.is_empty() {
                return Err(AddressRefused(name.as_str().to_owned()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::error::Again;

    fn send(url: &str, reach: Reach) -> RequestError {
        let http = Http::new(RegistryConfig::default(), Timeouts::default()).unwrap();
        let request = Request {
            url: url.parse().unwrap(),
            headers: HeaderMap::new(),
            authorization: None,
            reach,
            form: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(http.send(request)).err().unwrap()
    }

    #[test]
    fn a_name_that_nobody_has_is_final() {
        // No label may be so long: the resolver says so without asking anybody.
        let error = send(&format!("http://{}.x/", "a".repeat(64)), Reach::ANYWHERE);
        assert!(error.message.contains("cannot find"), "{error}");
        assert_eq!(error.again, Again::Never);
    }

    #[test]
    fn names_are_judged_by_what_they_resolve_to() {
        let error = send("http://localhost:1/", Reach::from(None));
        assert_eq!(error.kind, FailureKind::Redirect, "{error}");
        let error = send("http://localhost:1/", Reach::ANYWHERE);
        assert_eq!(error.kind, FailureKind::Connection, "{error}");
    }

    #[test]
    fn a_host_has_all_its_names() {
        let names = |url: &str| names(&url.parse().unwrap());
        assert_eq!(names("https://h.x/a"), ["h.x", "h.x:443"]);
        assert_eq!(names("https://h.x:5000/a"), ["h.x:5000"]);
        assert_eq!(names("http://[::1]:5000/?q"), ["[::1]:5000"]);
        assert!(names("https://registry-1.docker.io/").contains(&"docker.io".to_owned()));
    }
}
