//! `/v1/audio/transcriptions`.

use super::subtitles::{self, Format};
use crate::{
    engine::{Capability, Speech},
    error::{ApiError, Kind, shortened},
    media::{decode_recording, file_source},
    state::Shared,
};
use axum::{
    Json,
    extract::{
        Multipart, State,
        multipart::{MultipartError, MultipartRejection},
    },
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use mm_core::{EncodedFile, Modality, Source};
use mm_reason::pretrained::Transcript;
use serde_json::json;
use utoipa::ToSchema;

/// The fields of the form.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form; its fields are read one by one")]
pub(crate) struct TranscriptionForm {
    /// The recording: WAV, MP3, Ogg, FLAC, M4A, or WebM and other videos with sound.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// The model; the first that transcribes when absent.
    model: Option<String>,
    /// The spoken language, as a code or name; detected when absent.
    language: Option<String>,
    /// `json`, `text`, `srt`, `vtt` or `verbose_json`.
    response_format: Option<String>,
    /// 0 takes the most likely token.
    temperature: Option<f64>,
}

/// The form as it was sent.
#[derive(Default)]
struct Form {
    file: Option<Vec<u8>>,
    model: Option<String>,
    language: Option<String>,
    format: Format,
    temperature: Option<f64>,
}

/// Transcribes speech.
#[utoipa::path(post, path = "/v1/audio/transcriptions", tag = "openai",
    request_body(content = TranscriptionForm, content_type = "multipart/form-data",
        example = json!({"file": "@speech.wav", "response_format": "verbose_json"})),
    responses(
        (status = 200, description = "The transcript in the format that was asked for",
            content((Object = "application/json"), (String = "text/plain"), (String = "text/vtt"))),
        (status = 400, description = "Not a recording that can be read"),
        (status = 404, description = "No such model"),
        (status = 413, description = "More than the server takes")
    )
)]
pub(crate) async fn transcriptions(
    State(state): State<Shared>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, ApiError> {
    let no_form = |rejection: MultipartRejection| {
        ApiError::new(Kind::Invalid, format!("the form cannot be read: {}", rejection.body_text()))
    };
    let form = form.map_err(no_form)?;
    let form = read(form).await?;
    let Some(file) = form.file else { return Err(ApiError::invalid("file", "none", "a recording")) };
    let Source::Bytes(file) = file_source(&state.limits, &Modality::AUDIO, file, "file")? else {
        return Err(ApiError::internal("an uploaded file is not bytes"));
    };
    let format = form.format;
    let options = TranscriptionOptions {
        language: form.language,
        temperature: form.temperature,
        timestamps: format.needs_timestamps(),
    };
    let (transcript, seconds) = transcribe(&state, form.model.as_deref(), (file, "file"), options).await?;
    Ok(respond(&transcript, seconds, format))
}

/// How speech is transcribed.
pub(crate) struct TranscriptionOptions {
    /// The spoken language; detected when absent.
    pub(crate) language: Option<String>,
    /// Sampled at this temperature; the most likely tokens when absent or 0.
    pub(crate) temperature: Option<f64>,
    pub(crate) timestamps: bool,
}

/// The transcript of an audio file and its length in seconds; errors name the file by its field of the request.
pub(crate) async fn transcribe(
    state: &Shared,
    model: Option<&str>,
    (file, param): (EncodedFile, &'static str),
    options: TranscriptionOptions,
) -> Result<(Transcript, f64), ApiError> {
    let (model, _) = state.pool.find(model, Capability::Transcribe)?;
    let max_seconds = state.limits.max_audio_seconds;
    let permit = Some(model.admit_decoded(0, 1).await?);
    // Held by the decoding too, which goes on for a while where the client disconnects meanwhile.
    let held = permit.clone();
    let decoding = state.decode(move |cancellation| {
        let _held = held;
        cancellation.check()?;
        decode_recording(&file, param, max_seconds)
    });
    let (source, seconds) = decoding.await?;
    let TranscriptionOptions { language, temperature, timestamps } = options;
    let temperature = temperature.filter(|temperature| *temperature > 0.0);
    Ok((model.transcribe(Speech { source, seconds, language, timestamps, temperature, permit }).await?, seconds))
}

/// Fields that change no transcript, or have a value that does not.
const NEUTRAL: [&str; 7] =
    ["stream", "prompt", "timestamp_granularities", "timestamp_granularities[]", "user", "metadata", "store"];

const FIELDS: &str = "one of file, model, language, response_format and temperature";

async fn read(mut multipart: Multipart) -> Result<Form, ApiError> {
    let mut form = Form::default();
    while let Some(field) = multipart.next_field().await.map_err(rejected)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            form.file = Some(field.bytes().await.map_err(rejected)?.to_vec());
            continue;
        }
        let text = field.text().await.map_err(rejected)?;
        match name.as_str() {
            "model" => form.model = Some(text),
            "language" => form.language = Some(text).filter(|text| !text.is_empty()),
            "response_format" => form.format = text.parse()?,
            "temperature" => {
                let value: Option<f64> = text.parse().ok().filter(|value| (0.0..=2.0).contains(value));
                form.temperature =
                    Some(value.ok_or_else(|| ApiError::invalid("temperature", shortened(&text), "0 to 2"))?);
            }
            "stream" if !["", "false", "0"].contains(&text.to_ascii_lowercase().as_str()) => {
                return Err(ApiError::invalid("stream", shortened(&text), "false"));
            }
            "prompt" if !text.is_empty() => return Err(ApiError::invalid("prompt", "a text", "none")),
            "timestamp_granularities" | "timestamp_granularities[]" if text != "segment" => {
                return Err(ApiError::invalid(&name, shortened(&text), "segment"));
            }
            "include[]" => return Err(ApiError::invalid(&name, shortened(&text), "none")),
            name if NEUTRAL.contains(&name) || name.starts_with("metadata[") => {}
            other => return Err(ApiError::invalid(&shortened(other), "a field that is not known", FIELDS)),
        }
    }
    Ok(form)
}

fn rejected(error: MultipartError) -> ApiError {
    let kind = if error.status() == StatusCode::PAYLOAD_TOO_LARGE { Kind::TooLarge } else { Kind::Invalid };
    ApiError::new(kind, format!("the form cannot be read: {}", error.body_text()))
}

fn respond(transcript: &Transcript, seconds: f64, format: Format) -> Response {
    let text = transcript.text.trim();
    let warnings: Vec<String> = transcript.warnings.iter().map(ToString::to_string).collect();
    match format {
        Format::Json => {
            Json(json!({"text": text, "warnings": warnings, "truncated": transcript.truncated})).into_response()
        }
        Format::VerboseJson => {
            let segment = |(id, segment): (usize, &mm_reason::pretrained::Segment)| json!({"id": id, "start": segment.start, "end": segment.end, "text": segment.text});
            let segments: Vec<_> = transcript.segments.iter().enumerate().map(segment).collect();
            let mut body = json!({
                "task": "transcribe", "text": text, "duration": seconds, "segments": segments, "warnings": warnings,
                "truncated": transcript.truncated,
            });
            if let Some(language) = transcript.language {
                body["language"] = json!(language);
            }
            Json(body).into_response()
        }
        Format::Text => format!("{text}\n").into_response(),
        Format::Srt => subtitles::srt(&transcript.segments).into_response(),
        Format::Vtt => {
            ([(CONTENT_TYPE, "text/vtt; charset=utf-8")], subtitles::vtt(&transcript.segments)).into_response()
        }
    }
}
