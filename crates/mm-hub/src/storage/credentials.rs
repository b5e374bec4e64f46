//! Whether there are credentials for an object store. Without any its client asks the metadata service of the cloud's
//! virtual machines, and elsewhere waits for minutes for an answer.

use super::profile::{CREDENTIALS, Profile};
use crate::hub::variable;
use std::{
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};
use url::Url;

/// The metadata service of virtual machines of Amazon, Google and Azure.
const METADATA: &str = "http://169.254.169.254";
/// How long it may take to accept a connection.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Where a store's client looks for credentials, apart from the metadata service.
struct Places {
    /// Variables, any of which says where they are, or that none are needed.
    variables: &'static [&'static str],
    /// A file in the home folder.
    file: Option<&'static str>,
    /// The variable with another address of the metadata service.
    metadata: Option<&'static str>,
    /// What to set.
    hint: &'static str,
}

const S3: Places = Places {
    variables: &CREDENTIALS,
    file: None,
    metadata: Some("AWS_METADATA_ENDPOINT"),
    hint: "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws configure export-credentials --format env` prints those of \
           a profile), or AWS_SKIP_SIGNATURE=true for a public bucket",
};

const GOOGLE: Places = Places {
    variables: &[
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_SKIP_SIGNATURE",
        "SERVICE_ACCOUNT",
        "STORAGE_EMULATOR_HOST",
    ],
    file: Some(".config/gcloud/application_default_credentials.json"),
    metadata: None,
    hint: "GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, run `gcloud auth application-default login`, \
           or set GOOGLE_SKIP_SIGNATURE=true for a public bucket",
};

const AZURE: Places = Places {
    variables: &[
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_ACCESS_KEY",
        "AZURE_STORAGE_MASTER_KEY",
        "AZURE_STORAGE_SAS_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_TOKEN",
        "AZURE_STORAGE_CLIENT_SECRET",
        "AZURE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_FABRIC_SESSION_TOKEN",
        "AZURE_STORAGE_USE_EMULATOR",
        "AZURE_USE_AZURE_CLI",
        "AZURE_SKIP_SIGNATURE",
        "IDENTITY_ENDPOINT",
    ],
    file: None,
    metadata: Some("AZURE_MSI_ENDPOINT"),
    hint: "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and one of AZURE_STORAGE_ACCOUNT_KEY, \
           AZURE_STORAGE_SAS_TOKEN, AZURE_USE_AZURE_CLI=true (after `az login`) and, for a public container, \
           AZURE_SKIP_SIGNATURE=true",
};

/// In words, that there are no credentials for a scheme; `None` where there are some, or may be.
pub(super) fn lack(scheme: &str) -> Option<String> {
    let places = match scheme {
        "s3" | "s3a" => S3,
        "gs" => GOOGLE,
        "az" | "abfs" | "abfss" | "azure" => AZURE,
        _ => return None,
    };
    let profile = matches!(scheme, "s3" | "s3a").then(|| Profile::find(&variable));
    let has_keys = profile.as_ref().is_some_and(Profile::has_keys);
    if has_keys || places.variables.iter().any(|name| variable(name).is_some()) {
        return None;
    }
    let home = variable("HOME").map(std::path::PathBuf::from);
    let has_file = places.file.zip(home).is_some_and(|(file, home)| home.join(file).exists());
    let metadata = places.metadata.and_then(variable).unwrap_or_else(|| METADATA.to_owned());
    let is_named = profile.as_ref().is_some_and(Profile::is_named);
    let (hint, in_profile) = (places.hint, profile.map_or_else(String::new, |profile| format!(" {}", profile.lack())));
    (is_named || (!has_file && !answers(&metadata)))
        .then(|| format!("found no credentials in the environment{in_profile}; set {hint}"))
}

/// Whether a server accepts connections.
fn answers(address: &str) -> bool {
    let Some(url) = Url::parse(address).ok() else { return false };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return false };
    let addresses = (host, port).to_socket_addrs().into_iter().flatten();
    addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, TIMEOUT).is_ok())
}
