//! Files that a request names by URL, fetched for the server within limits, from listed public hosts alone.
//!
//! A server that opens any URL it is given can be made to read what only the server can reach: its own loopback, the
//! services next to it, the metadata address of a cloud. Every hop (the URL itself, then each redirect) is therefore
//! checked from the start, in this order:
//!
//! 1. the text of the URL: http or https, no user info, a domain name on the list, port 80 or 443 (`target`, `domain`);
//! 2. its addresses, resolved once: every one of them has to be public (`address`);
//! 3. one of those addresses is dialled, and no other (`dial`);
//! 4. the answer: status 200, not compressed, within the size and the time, an image, audio or video file by its first
//!    bytes (`fetcher`, `sniff`).
//!
//! All files of a request have limits together (`budget`).

mod address;
mod budget;
mod dial;
mod domain;
mod error;
mod fetcher;
mod sniff;
mod target;
#[cfg(test)]
mod tests;

pub use budget::{FetchBudget, RequestLimits};
pub use domain::AllowedDomain;
pub use error::FetchError;
pub use fetcher::{FetchLimits, Fetcher};
