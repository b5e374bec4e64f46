//! Files by URL, where the server allows them.

use crate::{
    Error,
    blocking::blocking,
    error::{ApiError, Kind},
    fetch::{AllowedDomain, FetchBudget, FetchError, FetchLimits, Fetcher},
};
use std::sync::Arc;

/// Files by URL, from the domains that the server allows.
pub(crate) struct UrlAccess(Arc<Fetcher>);

impl UrlAccess {
    /// Access to some domains; to none where the list is empty.
    pub(crate) fn new(domains: &[String]) -> Result<Self, Error> {
        let parse = |domain: &String| {
            let expected = "a domain name like example.org, or *.example.org for its subdomains";
            domain.parse::<AllowedDomain>().map_err(|error| {
                Error::setting("--fetch-from", format!("{domain:?}, which {}", error.reason()), expected)
            })
        };
        let allowed = domains.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Arc::new(Fetcher::new(allowed, FetchLimits::default()))))
    }

    /// The bytes of a file, which count against the budget of its request.
    pub(crate) async fn fetch(&self, url: String, param: &str, budget: &mut FetchBudget) -> Result<Vec<u8>, ApiError> {
        let (fetcher, mut spent) = (self.0.clone(), *budget);
        let fetch = move || {
            let fetched = spent.fetch(&fetcher, &url);
            Ok((fetched, spent))
        };
        let (fetched, spent) = blocking(fetch).await?;
        *budget = spent;
        let failed = |error: FetchError| {
            let kind = if error.is_of_request() { Kind::TooLarge } else { Kind::Invalid };
            ApiError::new(kind, format!("{param}: {error}")).with_param(param)
        };
        Ok(fetched.map_err(failed)?.bytes)
    }
}
