//! The profile that Amazon's own tools would use: a section of `~/.aws/credentials` and of `~/.aws/config`. Variables of
//! the environment go before it, as there.
//!
//! <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>

use object_store::aws::AmazonS3Builder;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Variables with credentials for S3, or that say where they are, or that none are needed.
pub(super) const CREDENTIALS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];
/// Variables with another endpoint than Amazon's.
pub(super) const ENDPOINTS: [&str; 3] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
/// Settings by which Amazon's tools get temporary credentials from elsewhere.
const OTHER_WAYS: [&str; 5] = ["credential_process", "sso_session", "sso_start_url", "role_arn", "login_session"];

/// Variables of the environment that say something.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A profile, which may have no settings. Without `Debug`: it holds secrets.
pub(super) struct Profile {
    name: String,
    /// Whether a variable names it.
    is_named: bool,
    settings: BTreeMap<String, String>,
}

impl Profile {
    /// The profile that `AWS_PROFILE` names, else `default`.
    pub fn find(variable: Variables<'_>) -> Self {
        let named = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].into_iter().find_map(variable);
        let is_named = named.is_some();
        let name = named.unwrap_or_else(|| "default".to_owned());
        let read = |named: &str, usual: &str| {
            let usual = || Some(Path::new(&variable("HOME")?).join(".aws").join(usual));
            std::fs::read_to_string(variable(named).map(PathBuf::from).or_else(usual)?).ok()
        };
        let title = if name == "default" { name.clone() } else { format!("profile {name}") };
        let mut settings = section(&read("AWS_CONFIG_FILE", "config").unwrap_or_default(), &title);
        settings.extend(section(&read("AWS_SHARED_CREDENTIALS_FILE", "credentials").unwrap_or_default(), &name));
        Self { name, is_named, settings }
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn keys(&self) -> Option<(&str, &str)> {
        self.setting("aws_access_key_id").zip(self.setting("aws_secret_access_key"))
    }

    pub fn has_keys(&self) -> bool {
        self.keys().is_some()
    }

    /// Whether a variable names it, so that the credentials of a virtual machine are not meant.
    pub fn is_named(&self) -> bool {
        self.is_named
    }

    /// In words, what a profile without keys has instead.
    pub fn lack(&self) -> String {
        let name = &self.name;
        match OTHER_WAYS.into_iter().find(|way| self.setting(way).is_some()) {
            Some(way) => format!("and in the profile `{name}` of ~/.aws/config `{way}`, which mm does not use"),
            None => format!("or in the profile `{name}` of ~/.aws/credentials"),
        }
    }

    /// A client with what the profile says and the environment does not.
    pub fn apply(&self, mut builder: AmazonS3Builder, variable: Variables<'_>) -> AmazonS3Builder {
        let is_set = |names: &[&str]| names.iter().any(|name| variable(name).is_some());
        if let Some((id, secret)) = self.keys().filter(|_| !is_set(&CREDENTIALS)) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            if let Some(token) = self.setting("aws_session_token") {
                builder = builder.with_token(token);
            }
        }
        if let Some(region) = self.setting("region").filter(|_| !is_set(&REGIONS)) {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = self.setting("endpoint_url").filter(|_| !is_set(&ENDPOINTS)) {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        builder
    }
}

/// The settings of a section of an INI file. Nested settings, which are indented, are left out.
fn section(text: &str, title: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut is_in = false;
    for line in text.lines().filter(|line| !line.starts_with(['#', ';', ' ', '\t'])) {
        if let Some(found) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_in = found.replace('"', "").split_whitespace().eq(title.split_whitespace());
        } else if is_in && let Some((name, value)) = line.split_once('=') {
            // A comment may follow.
            let value = value.split(" #").next().unwrap_or_default().split(" ;").next().unwrap_or_default();
            settings.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::aws::AmazonS3ConfigKey as Key;

    const CONFIG: &str = "\
[default]
region = eu-central-1 # near
s3 =
  max_concurrent_requests = 20
  region = nowhere

[profile birds]
region=us-west-2
endpoint_url = http://127.0.0.1:9000
[profile login]
sso_session = work
";
    const CREDENTIALS_FILE: &str = "\
# written by aws configure
[default]
aws_access_key_id = AKIA1
aws_secret_access_key = a/b+c=
[birds]
aws_access_key_id=AKIA2
aws_secret_access_key=secret
aws_session_token = token==
";

    /// What a client has of the profile of a home folder, with these variables.
    fn client(variables: &[(&str, &str)]) -> (Profile, Vec<Option<String>>) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".aws");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config"), CONFIG).unwrap();
        std::fs::write(folder.join("credentials"), CREDENTIALS_FILE).unwrap();
        let find = |name: &str| {
            let own = variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            own.or_else(|| (name == "HOME").then(|| home.path().display().to_string()))
        };
        let profile = Profile::find(&find);
        let builder = profile.apply(AmazonS3Builder::new(), &find);
        let keys = [Key::AccessKeyId, Key::SecretAccessKey, Key::Token, Key::Region, Key::Endpoint];
        let values = keys.iter().map(|key| builder.get_config_value(key)).collect();
        (profile, values)
    }

    fn values(values: [&str; 5]) -> Vec<Option<String>> {
        values.map(|value| Some(value.to_owned()).filter(|value| !value.is_empty())).to_vec()
    }

    #[test]
    fn a_profile_is_read_as_by_the_tools_of_amazon() {
        assert_eq!(client(&[]).1, values(["AKIA1", "a/b+c=", "", "eu-central-1", ""]));
        let birds = [("AWS_PROFILE", "birds")];
        assert_eq!(client(&birds).1, values(["AKIA2", "secret", "token==", "us-west-2", "http://127.0.0.1:9000"]));
        // What the environment says is not taken from the profile.
        let own =
            [birds[0], ("AWS_ACCESS_KEY_ID", "AKIA3"), ("AWS_DEFAULT_REGION", "us-east-2"), ("AWS_ENDPOINT_URL", "u")];
        assert_eq!(client(&own).1, values([""; 5]));
        let public = [("AWS_SKIP_SIGNATURE", "true")];
        assert_eq!(client(&public).1, values(["", "", "", "eu-central-1", ""]));
    }

    #[test]
    fn a_profile_without_keys_is_named() {
        let (login, found) = client(&[("AWS_PROFILE", "login")]);
        assert_eq!(found, values([""; 5]));
        assert!(!login.has_keys() && login.is_named() && login.lack().contains("`login`"), "{}", login.lack());
        assert!(login.lack().contains("`sso_session`, which mm does not use"), "{}", login.lack());
        let (missing, _) = client(&[("AWS_SHARED_CREDENTIALS_FILE", "/does/not/exist")]);
        assert!(!missing.has_keys() && !missing.is_named());
        assert_eq!(missing.lack(), "or in the profile `default` of ~/.aws/credentials");
    }
}
