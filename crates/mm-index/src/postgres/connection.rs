//! Connections to the server.

use super::{
    address::Address,
    failure::{Failure, LOCK_TIMEOUT},
};
use crate::Error;
use postgres::{Client, GenericClient};
use std::{sync::mpsc, thread};

/// The oldest pgvector that has what is used: 16-bit vectors (0.7) and filtered scans of graphs (0.8).
const LEAST_PGVECTOR: (u32, u32) = (0, 8);

/// The oldest server, as it numbers itself: 14 is the first that notices a client that is gone while it works for it.
const LEAST_SERVER: u32 = 140_000;

/// A connection as every use of it wants it: a commit returns when it is on the server's disk; what waits too long ends;
/// and a writer whose machine is gone does not keep its lock for hours.
const SESSION: &str = "
    SET client_min_messages = warning;
    SET jit = off;
    SET tcp_keepalives_idle = 30;
    SET tcp_keepalives_interval = 10;
    SET tcp_keepalives_count = 3;
    SET idle_in_transaction_session_timeout = '10min';
    SET client_connection_check_interval = '10s';
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";

/// What [`connect`] found of pgvector.
pub(super) struct Extension {
    /// The schema of its types and operators.
    schema: String,
    version: String,
}

/// Opens a connection, whose tables are those of the store's schema.
pub(super) fn connect(address: &Address) -> Result<Client, Failure> {
    let mut client = connect_bare(address)?;
    match find_extension(&mut client)? {
        Some(extension) => use_extension(&mut client, address, &extension)?,
        None => return Err(Error::file(&address.shown, NO_EXTENSION).into()),
    }
    Ok(client)
}

pub(super) const NO_EXTENSION: &str = "found no extension pgvector in this database; install it on the server (Debian: \
    the package postgresql-NN-pgvector of apt.postgresql.org; or https://github.com/pgvector/pgvector), then run \
    `CREATE EXTENSION vector` in the database as its owner";

/// Opens a connection that does not know pgvector yet.
pub(super) fn connect_bare(address: &Address) -> Result<Client, Failure> {
    let (sender, receiver) = mpsc::channel();
    let config = address.config.clone();
    let connector = address.tls.connector().map_err(|reason| Error::file(&address.shown, reason))?;
    // The client limits the time of the network alone: a server that accepts and then is silent would be waited for.
    thread::spawn(move || {
        // Nobody listens any more where it took too long.
        sender.send(config.connect(connector)).ok();
    });
    let mut client = receiver.recv_timeout(address.connect_timeout).map_err(|_| {
        let seconds = address.connect_timeout.as_secs();
        let reason = format!(
            "the server did not answer within {seconds} s; is it running, and are host and port right? \
            `connect_timeout=SECONDS` in the address allows more"
        );
        Failure::Other(Error::file(&address.shown, reason))
    })??;
    let version: String = client.query_one("SHOW server_version_num", &[])?.try_get(0)?;
    if version.parse::<u32>().unwrap_or(0) < LEAST_SERVER {
        let reason = format!("found PostgreSQL {}, expected {} or newer", version, LEAST_SERVER / 10_000);
        return Err(Error::file(&address.shown, reason).into());
    }
    client.batch_execute(SESSION)?;
    let (lock, statement) = (LOCK_TIMEOUT.as_millis(), address.timeout.as_millis());
    client.batch_execute(&format!("SET lock_timeout = {lock}; SET statement_timeout = {statement}"))?;
    Ok(client)
}

/// The extension of a database.
pub(super) fn find_extension(client: &mut impl GenericClient) -> Result<Option<Extension>, Failure> {
    let sql = "SELECT n.nspname::text, e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        WHERE e.extname = 'vector'";
    let found = client.query_opt(sql, &[])?;
    found.map(|row| Ok(Extension { schema: row.try_get(0)?, version: row.try_get(1)? })).transpose()
}

/// Makes the tables of the store and the types of pgvector the ones that statements name.
pub(super) fn use_extension(
    client: &mut impl GenericClient,
    address: &Address,
    extension: &Extension,
) -> Result<(), Failure> {
    let mut parts = extension.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < LEAST_PGVECTOR {
        let (major, minor) = LEAST_PGVECTOR;
        let reason = format!(
            "found pgvector {}, expected {major}.{minor} or newer; install it on the server, then run \
            `ALTER EXTENSION vector UPDATE` in the database",
            extension.version
        );
        return Err(Error::file(&address.shown, reason).into());
    }
    let of_extension = extension.schema.replace('"', "\"\"");
    client.batch_execute(&format!("SET search_path TO {}, \"{of_extension}\"", address.quoted_schema()))?;
    Ok(())
}
