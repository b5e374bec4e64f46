//! The store that a URL names, with the credentials and endpoints of the environment.

use super::{
    profile::{ENDPOINTS, Profile},
    retrying::{Connector, client_retries},
};
use crate::{
    error::{Result, bail},
    fetch::RetryPolicy,
    hub::variable,
};
use object_store::{
    ClientOptions, ObjectStore, StaticCredentialProvider,
    aws::{AmazonS3, AmazonS3Builder},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GcpCredential, GoogleCloudStorageBuilder},
    http::HttpBuilder,
};
use std::{collections::BTreeMap, sync::Arc};
use url::Url;

/// `datasets/ORG/NAME[@REVISION]/FILE` → the address of the file on the hub.
pub(super) fn of_hub(url: &str, rest: &str) -> Result<String> {
    let expected = "hf://datasets/ORG/NAME[@REVISION]/FILE";
    let parts: Vec<&str> = rest.splitn(4, '/').collect();
    let ["datasets", organization, name, file] = parts[..] else { bail!("{url}: expected {expected}") };
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    Ok(format!("{}/datasets/{organization}/{name}/resolve/{revision}/{file}", endpoint.trim_end_matches('/')))
}

/// The store of a URL, with the settings of the environment.
pub(super) fn build(
    url: &Url,
    token: Option<String>,
    retries: RetryPolicy,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = client_retries();
    let host = url.host_str().unwrap_or_default();
    Ok(match url.scheme() {
        "s3" | "s3a" => {
            let mut builder = Profile::find(&variable).apply(AmazonS3Builder::from_env(), &variable);
            // An endpoint that is named as http:// (MinIO on this network) is meant, as for the store's own tools.
            let endpoint = ENDPOINTS.into_iter().find_map(variable);
            if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
                builder = builder.with_allow_http(true);
            }
            Arc::new(s3(builder, host, retries)?)
        }
        "gs" => Arc::new(
            google(GoogleCloudStorageBuilder::from_env())
                .with_bucket_name(host)
                .with_retry(retry)
                .with_http_connector(Connector(retries))
                .build()?,
        ),
        "http" | "https" => {
            let mut options = ClientOptions::new().with_allow_http(true);
            if let Some(token) = token {
                let value = format!("Bearer {token}").parse();
                let invalid = |e| object_store::Error::Generic { store: "HTTP", source: Box::new(e) };
                let headers = [(http::header::AUTHORIZATION, value.map_err(invalid)?)];
                options = options.with_default_headers(headers.into_iter().collect());
            }
            let base = format!("{}://{}", url.scheme(), url.authority());
            Arc::new(
                HttpBuilder::new()
                    .with_url(base)
                    .with_client_options(options)
                    .with_retry(retry)
                    .with_http_connector(Connector(retries))
                    .build()?,
            )
        }
        _ => {
            let builder = azure(MicrosoftAzureBuilder::from_env(), variable("AZURE_STORAGE_CONNECTION_STRING"))?;
            Arc::new(builder.with_url(url.as_str()).with_retry(retry).with_http_connector(Connector(retries)).build()?)
        }
    })
}

pub(super) fn s3(builder: AmazonS3Builder, bucket: &str, retries: RetryPolicy) -> object_store::Result<AmazonS3> {
    builder.with_bucket_name(bucket).with_retry(client_retries()).with_http_connector(Connector(retries)).build()
}

/// With the emulator that Google's own libraries take from `STORAGE_EMULATOR_HOST`.
fn google(builder: GoogleCloudStorageBuilder) -> GoogleCloudStorageBuilder {
    let Some(host) = variable("STORAGE_EMULATOR_HOST") else { return builder };
    let base = if host.contains("://") { host } else { format!("http://{host}") };
    builder
        .with_base_url(base.trim_end_matches('/'))
        // Not even asked for where there is nothing to prove.
        .with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential { bearer: String::new() })))
        .with_client_options(ClientOptions::new().with_allow_http(base.starts_with("http://")))
}

/// With a connection string, which Azure's own tools take from `AZURE_STORAGE_CONNECTION_STRING`: `NAME=VALUE;…`.
fn azure(builder: MicrosoftAzureBuilder, connection: Option<String>) -> object_store::Result<MicrosoftAzureBuilder> {
    let Some(connection) = connection else { return Ok(builder) };
    let pairs: BTreeMap<&str, &str> = connection.split(';').filter_map(|pair| pair.trim().split_once('=')).collect();
    let value = |name: &str| pairs.get(name).copied().filter(|value| !value.is_empty());
    if value("UseDevelopmentStorage") == Some("true") {
        return Ok(builder.with_use_emulator(true));
    }
    let Some(account) = value("AccountName") else {
        let expected = "AZURE_STORAGE_CONNECTION_STRING: found no AccountName, expected AccountName=…;AccountKey=…";
        return Err(object_store::Error::Generic { store: "Azure", source: expected.into() });
    };
    let suffix = value("EndpointSuffix").unwrap_or("core.windows.net");
    let protocol = value("DefaultEndpointsProtocol").unwrap_or("https");
    let endpoint = value("BlobEndpoint").map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    let endpoint = endpoint.unwrap_or_else(|| format!("{protocol}://{account}.blob.{suffix}"));
    let builder =
        builder.with_account(account).with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
    let builder = value("AccountKey").into_iter().fold(builder, MicrosoftAzureBuilder::with_access_key);
    Ok(value("SharedAccessSignature").into_iter().fold(builder, |b, sas| b.with_config(AzureConfigKey::SasKey, sas)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_name_account_key_and_endpoint() {
        let build = |text: &str| azure(MicrosoftAzureBuilder::new(), Some(text.to_owned()));
        let value = |text: &str, key: AzureConfigKey| build(text).unwrap().get_config_value(&key);
        let usual = "DefaultEndpointsProtocol=https;AccountName=birds;AccountKey=aGk=;EndpointSuffix=core.windows.net";
        assert_eq!(value(usual, AzureConfigKey::AccountName).unwrap(), "birds");
        assert_eq!(value(usual, AzureConfigKey::AccessKey).unwrap(), "aGk=");
        assert_eq!(value(usual, AzureConfigKey::Endpoint).unwrap(), "https://birds.blob.core.windows.net");
        let local = "AccountName=a;AccountKey=aGk=;BlobEndpoint=http://127.0.0.1:10000/a/;";
        assert_eq!(value(local, AzureConfigKey::Endpoint).unwrap(), "http://127.0.0.1:10000/a");
        let signed = "BlobEndpoint=https://a.blob.core.windows.net;AccountName=a;SharedAccessSignature=sv=1&sig=x";
        assert_eq!(value(signed, AzureConfigKey::SasKey).unwrap(), "sv=1&sig=x");
        assert_eq!(value("UseDevelopmentStorage=true", AzureConfigKey::UseEmulator).unwrap(), "true");
        assert!(build("AccountKey=aGk=").unwrap_err().to_string().contains("no AccountName"));
    }
}
