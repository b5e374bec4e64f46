//! Where a store is: a folder, or a schema of a database of PostgreSQL. The location chooses the engine.

use crate::{Error, Result, SqliteStore, Store, StoreConfig};
use std::path::Path;

/// How the address of a database begins.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// A location.
enum Place<'a> {
    Folder(&'a Path),
    Database(&'a str),
}

/// What a location names.
fn place(location: &Path) -> Result<Place<'_>> {
    match location.to_str().filter(|text| text.contains("://")) {
        Some(address) if SCHEMES.iter().any(|scheme| address.starts_with(scheme)) => Ok(Place::Database(address)),
        Some(_) => {
            Err(Error::file(location, format!("expected a folder, or the address of a database, {}…", SCHEMES[0])))
        }
        None => Ok(Place::Folder(location)),
    }
}

/// Creates a store at a location: a folder, or with the feature `postgres` a schema of a database
/// (`postgres://user@host/database?schema=birds`).
///
/// # Errors
/// When there is a store already, the location cannot be written, or a location is a database and the feature is off.
pub fn create(location: &Path, config: &StoreConfig) -> Result<Box<dyn Store>> {
    match place(location)? {
        Place::Database(address) => server::create(address, config),
        Place::Folder(folder) => Ok(Box::new(SqliteStore::create(folder, config)?)),
    }
}

/// Opens the store at a location: see [`create`].
///
/// # Errors
/// When there is none, it is damaged, or of another version.
pub fn open(location: &Path) -> Result<Box<dyn Store>> {
    match place(location)? {
        Place::Database(address) => server::open(address),
        Place::Folder(folder) => Ok(Box::new(SqliteStore::open(folder)?)),
    }
}

/// Whether there is a store at a location, whole or not.
///
/// # Errors
/// When the server does not answer.
pub fn exists(location: &Path) -> Result<bool> {
    match place(location)? {
        Place::Database(address) => server::exists(address),
        Place::Folder(folder) => Ok(SqliteStore::exists(folder)),
    }
}

/// A location as it may be shown: without the password of a database.
///
/// ```
/// use std::path::Path;
/// let location = Path::new("postgres://ann:secret@db.example.org/mm?schema=birds");
/// assert_eq!(mm_index::without_password(location), "postgres://ann@db.example.org/mm?schema=birds");
/// assert_eq!(mm_index::without_password(Path::new("birds.index")), "birds.index");
/// ```
pub fn without_password(location: &Path) -> String {
    let text = location.display().to_string();
    let Some((scheme, rest)) = location.to_str().and_then(|text| text.split_once("://")) else { return text };
    // A password with characters that should have been percent-encoded may hold `/`, `?` or `@` itself.
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    let Some((base, parameters)) = rest.split_once('?') else { return format!("{scheme}://{rest}") };
    let shown: Vec<&str> = parameters.split('&').filter(|pair| !pair.starts_with("password")).collect();
    let parameters = if shown.is_empty() { String::new() } else { format!("?{}", shown.join("&")) };
    format!("{scheme}://{base}{parameters}")
}

#[cfg(feature = "postgres")]
mod server {
    use crate::{PostgresStore, Result, Store, StoreConfig};

    pub(super) fn create(address: &str, config: &StoreConfig) -> Result<Box<dyn Store>> {
        Ok(Box::new(PostgresStore::create(address, config)?))
    }

    pub(super) fn open(address: &str) -> Result<Box<dyn Store>> {
        Ok(Box::new(PostgresStore::open(address)?))
    }

    pub(super) fn exists(address: &str) -> Result<bool> {
        PostgresStore::exists(address)
    }
}

#[cfg(not(feature = "postgres"))]
mod server {
    use crate::{Error, Result, Store, StoreConfig};
    use std::path::Path;

    fn refuse<T>(address: &str) -> Result<T> {
        let reason = "this program was built without PostgreSQL, expected a folder; build it with the feature `postgres` of mm-index";
        Err(Error::file(super::without_password(Path::new(address)), reason))
    }

    pub(super) fn create(address: &str, _config: &StoreConfig) -> Result<Box<dyn Store>> {
        refuse(address)
    }

    pub(super) fn open(address: &str) -> Result<Box<dyn Store>> {
        refuse(address)
    }

    pub(super) fn exists(address: &str) -> Result<bool> {
        refuse(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let shown = |text: &str| without_password(Path::new(text));
        assert_eq!(shown("postgres://a:b@h:5/d"), "postgres://a@h:5/d");
        assert_eq!(shown("postgres://a:p@ss/w?rd@h/d?schema=s"), "postgres://a@h/d?schema=s");
        assert_eq!(shown("postgresql://h/d?password=x&schema=s"), "postgresql://h/d?schema=s");
        assert_eq!(shown("postgresql://h/d?password=x"), "postgresql://h/d");
        assert_eq!(shown("folder/a:b@c"), "folder/a:b@c");
    }

    #[cfg(not(feature = "postgres"))]
    #[test]
    fn a_database_is_refused_without_the_feature() {
        let location = Path::new("postgres://a:secret@h/d");
        for message in [open(location).err(), exists(location).err()].map(|e| e.unwrap().to_string()) {
            assert!(message.contains("the feature `postgres`") && !message.contains("secret"), "{message}");
        }
    }
}
