//! The store that the server searches.

use crate::{
    Error, Result,
    blocking::blocking,
    engine::{ModelHandle, ModelInfo, ModelPool},
    error::{ApiError, Kind},
};
use mm_core::describe_error;
use mm_index::{Answer, Query, Row, Stats, Store};
use std::{path::Path, sync::Arc};

/// A store, opened once for all requests.
pub(crate) struct Index {
    store: Arc<dyn Store>,
    /// Whether `/upsert` and `/delete` may change it.
    writable: bool,
}

impl Index {
    /// Opens the store of a folder or of a database.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn open(location: &Path, writable: bool) -> Result<Self> {
        let failed = |source| Error::Store { location: mm_index::without_password(location), source: Box::new(source) };
        Ok(Self { store: mm_index::open(location).map_err(failed)?.into(), writable })
    }

    /// The model whose vectors the store holds, and the named vectors that are its own.
    pub(crate) fn model<'a>(
        &self,
        pool: &'a ModelPool,
    ) -> Result<(&'a ModelHandle, Arc<ModelInfo>, Vec<String>), ApiError> {
        let config = self.store.config();
        let mut of_others = None;
        for (name, vector) in &config.vectors {
            let Some(model) = &vector.model else { continue };
            if let Some((handle, info)) = pool.by_fingerprint(&model.fingerprint) {
                let same = |other: &&String| config.vectors[*other].model.as_ref() == Some(model);
                return Ok((handle, info, config.vectors.keys().filter(same).cloned().collect()));
            }
            of_others.get_or_insert((name, &model.name));
        }
        let message = match of_others {
            Some((vector, model)) => format!(
                "the vectors `{vector}` of the store are of model {model}, which this server has not loaded (or has in \
                 another version); start it with --model {model}"
            ),
            None => "the store does not say which model its vectors are of, so only words can be searched".to_owned(),
        };
        Err(ApiError::new(Kind::NotFound, message).with_code("model_not_found"))
    }

    /// The model of its vectors, where it says one.
    pub(crate) fn model_name(&self) -> Option<&str> {
        self.store.config().vectors.values().find_map(|vector| vector.model.as_ref()).map(|model| model.name.as_str())
    }

    pub(crate) async fn query(&self, query: Query) -> Result<Answer, ApiError> {
        let store = self.store.clone();
        blocking(move || store.query(&query).map_err(from_index)).await
    }

    pub(crate) async fn stats(&self) -> Result<Stats, ApiError> {
        let store = self.store.clone();
        blocking(move || store.stats().map_err(from_index)).await
    }

    /// The row of an id.
    pub(crate) async fn row(&self, id: String) -> Result<Row, ApiError> {
        let store = self.store.clone();
        let found = blocking(move || {
            let row = store.get(&[&id]).map_err(from_index)?.into_iter().next().flatten();
            row.ok_or_else(|| ApiError::new(Kind::NotFound, format!("the store has no row {id:?}")).with_param("id"))
        });
        found.await
    }

    pub(crate) async fn upsert(&self, rows: Vec<Row>) -> Result<(), ApiError> {
        self.check_writable()?;
        let store = self.store.clone();
        blocking(move || store.upsert(&rows).map_err(from_index)).await
    }

    pub(crate) async fn delete(&self, ids: Vec<String>) -> Result<usize, ApiError> {
        self.check_writable()?;
        let store = self.store.clone();
        blocking(move || {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            store.delete(&ids).map_err(from_index)
        })
        .await
    }

    pub(crate) fn check_writable(&self) -> Result<(), ApiError> {
        if self.writable {
            return Ok(());
        }
        let message = "this server does not change its store; start it with --writable to allow it";
        Err(ApiError::new(Kind::Invalid, message).with_code("read_only"))
    }
}

/// An error of the store: of the query, of who else uses it, or of the server, whose paths and addresses go to its log.
fn from_index(error: mm_index::Error) -> ApiError {
    use mm_index::Error as Index;
    let logged = |kind, message: &str| ApiError::new(kind, message).with_fault(describe_error(&error));
    match &error {
        Index::Invalid { .. } | Index::Unknown { .. } | Index::Filter(_) | Index::Model { .. } => {
            let invalid = ApiError::new(Kind::Invalid, describe_error(&error)).with_code("invalid_query");
            let is_of_filter = match &error {
                Index::Filter(_) => true,
                Index::Invalid { what, .. } => what.contains("filter"),
                Index::Unknown { what, .. } => what.contains("filter"),
                _ => false,
            };
            if is_of_filter { invalid.with_param("filter") } else { invalid }
        }
        Index::DiskFull { .. } => {
            logged(Kind::Full, "the disk of the store is full: nothing of this write is stored; try again later")
        }
        Index::Busy { seconds, .. } => {
            let message = format!("the store was written by another process for {seconds} s; try again");
            logged(Kind::Unavailable, &message)
        }
        _ if error.is_of_server() => {
            logged(Kind::Unavailable, "the database of the store does not answer as it should")
        }
        _ => ApiError::internal(describe_error(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_store_is_one_of_the_request_or_of_the_server() {
        let path = || std::path::PathBuf::from("/secret/index.sqlite");
        let invalid =
            |what: &str| mm_index::Error::Invalid { what: what.into(), found: "0".into(), expected: "1".into() };
        let unknown = |what| mm_index::Error::Unknown { what, name: "yaer".into(), hint: String::new() };
        let param = |error| from_index(error).body()["error"]["param"].clone();
        assert_eq!(param(unknown("field in the filter")), "filter");
        assert_eq!(param(invalid("value of `year` in the filter")), "filter");
        assert!(param(invalid("k")).is_null() && param(unknown("vector")).is_null());
        let busy = mm_index::Error::Busy { path: path(), action: "written", seconds: 30 };
        let damaged = mm_index::Error::Damaged { path: path(), what: "a page".into() };
        for (error, status, words) in [
            (invalid("k"), 400, "k: found 0"),
            (busy, 503, "another process for 30 s"),
            (mm_index::Error::DiskFull { path: path() }, 507, "disk of the store is full"),
            (damaged, 500, "its log says why"),
        ] {
            let answer = from_index(error);
            assert_eq!((answer.kind.status().as_u16(), answer.message().contains(words)), (status, true), "{answer:?}");
            assert!(!answer.message().contains("secret"), "{answer:?}");
        }
    }
}
