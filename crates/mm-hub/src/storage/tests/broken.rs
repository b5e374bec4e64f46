//! Connections that break within an answer.

use super::*;
use crate::testing::{faulty::Fault, reported_attempts};

fn content(version: u8) -> Vec<u8> {
    (0..1000u32).map(|i| (i / 3) as u8 ^ version).collect()
}

/// What the requests but the first, `HEAD`, asked for.
fn asked(bucket: &Bucket) -> Vec<(Option<(usize, usize)>, Option<String>)> {
    bucket.server.requests().into_iter().skip(1).map(|request| (request.range, request.if_match)).collect()
}

#[test]
fn a_file_that_breaks_is_continued_where_it_broke() {
    let bucket = Bucket::new("continued", RETRIES, |request| {
        let reply = Reply::file(request, "\"1\"", &content(0));
        match request.number {
            1 => reply.with(Fault::Closed(400)),
            2 => reply.with(Fault::Closed(100)),
            _ => reply,
        }
    });
    assert_eq!(bucket.fetch("rows.csv").unwrap(), content(0));
    let same = Some("\"1\"".to_owned());
    assert_eq!(asked(&bucket), [(None, None), (Some((400, 999)), same.clone()), (Some((500, 999)), same)]);
    let reported = reported_attempts("s3://continued/rows.csv");
    let expected = [(400, 2), (500, 3)];
    assert_eq!(reported.len(), 2, "{reported:?}");
    for (note, (received, attempt)) in reported.iter().zip(expected) {
        let begin = format!(
            "warning: s3://continued/rows.csv: the connection broke after {received} of 1000 bytes (end of file"
        );
        assert!(note.starts_with(&begin) && note.ends_with(&format!("(attempt {attempt} of 3)")), "{note}");
    }
}

#[test]
fn a_part_that_breaks_is_continued_where_it_broke() {
    let bucket = Bucket::new("parts", RETRIES, |request| {
        let reply = Reply::file(request, "\"1\"", &content(0));
        if request.number == 0 { reply.with(Fault::Closed(200)) } else { reply }
    });
    assert_eq!(bucket.storage.read(&bucket.url("rows.csv"), 100, 500).unwrap(), content(0)[100..600]);
    assert_eq!(asked(&bucket), [(Some((300, 599)), Some("\"1\"".to_owned()))]);
    let reported = reported_attempts("s3://parts/");
    let expected = "rows.csv: the connection broke after 200 of 500 bytes from byte 100 on (";
    assert!(reported.len() == 1 && reported[0].contains(expected), "{reported:?}");
}

#[test]
fn a_part_that_is_shorter_than_the_server_states_is_continued() {
    let bucket = Bucket::new("short", RETRIES, |request| match request.number {
        0 => {
            let headers = "ETag: \"1\"\r\nContent-Range: bytes 100-599/1000\r\n";
            let date = "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n";
            Reply::new("206 Partial Content", &format!("{headers}{date}"), &content(0)[100..300])
        }
        _ => Reply::file(request, "\"1\"", &content(0)),
    });
    assert_eq!(bucket.storage.read(&bucket.url("rows.csv"), 100, 500).unwrap(), content(0)[100..600]);
    assert_eq!(asked(&bucket), [(Some((300, 599)), Some("\"1\"".to_owned()))]);
    let reported = reported_attempts("s3://short/");
    assert!(reported.len() == 1 && reported[0].contains("after 200 of 500 bytes"), "{reported:?}");
}

#[test]
fn two_versions_are_not_mixed() {
    for knows_conditions in [true, false] {
        let bucket = Bucket::new("versions", RETRIES, move |request| match request.number {
            0 => Reply::file(request, "\"1\"", &content(0)),
            1 => Reply::file(request, "\"1\"", &content(0)).with(Fault::Closed(400)),
            _ if knows_conditions => Reply::new("412 Precondition Failed", "", b""),
            _ => Reply::file(request, "\"2\"", &content(1)),
        });
        let text = text_of(&bucket.fetch("rows.csv").unwrap_err());
        assert_eq!(text, "s3://versions/rows.csv: it changed while it was copied; run again");
        assert_eq!(asked(&bucket)[1], (Some((400, 999)), Some("\"1\"".to_owned())));
        let folders = fs::read_dir(bucket.cache.path().join("storage")).unwrap().flatten();
        assert!(folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap()).next().is_none());
    }
}

#[test]
fn a_file_without_a_strong_etag_begins_again() {
    for e_tag in ["", "ETag: W/\"1\"\r\n"] {
        let bucket = Bucket::new("again", RETRIES, move |request| match request.number {
            0 => Reply::new("200 OK", e_tag, &content(0)),
            1 => Reply::new("200 OK", e_tag, &content(0)).with(Fault::Closed(400)),
            _ => Reply::new("200 OK", e_tag, &content(1)),
        });
        assert_eq!(bucket.fetch("rows.csv").unwrap(), content(1));
        assert_eq!(asked(&bucket), [(None, None), (None, None)]);
    }
}

#[test]
fn a_file_of_a_server_that_sends_no_parts_begins_again() {
    let server = FaultyServer::start(|request| {
        let reply = Reply::new("200 OK", "ETag: \"1\"\r\n", &content(0));
        if request.number == 1 { reply.with(Fault::Closed(400)) } else { reply }
    });
    let cache = tempfile::tempdir().unwrap();
    let url = format!("{}/rows.csv", server.url);
    let copy = Storage::with_retries(cache.path(), RETRIES).fetch(&url).unwrap();
    assert_eq!(fs::read(copy).unwrap(), content(0));
    let ranges: Vec<_> = server.requests().into_iter().skip(1).map(|request| request.range).collect();
    assert_eq!(ranges, [None, Some((400, 999)), None]);
    assert_eq!(reported_attempts(&url).len(), 1);
}

#[test]
fn a_file_that_keeps_breaking_is_given_up_and_named() {
    for (name, sent, received) in [("breaking-at-once", 0, 0), ("breaking-later", 10, 30)] {
        let bucket = Bucket::new(name, RETRIES, move |request| {
            Reply::file(request, "\"1\"", &content(0)).with(Fault::Closed(sent))
        });
        let text = text_of(&bucket.fetch("rows.csv").unwrap_err());
        let broke =
            format!("s3://{name}/rows.csv cannot be read: the connection broke after {received} of 1000 bytes (");
        assert!(text.starts_with(&broke) && text.ends_with(" (tried 3 times in 0 s; try again later)"), "{text}");
        assert_eq!((asked(&bucket).len(), reported_attempts(name).len()), (3, 2), "{text}");
    }
}

#[test]
fn the_attempts_of_a_file_and_of_its_requests_are_counted_together() {
    let bucket = Bucket::new("together", RETRIES, |request| match request.number {
        1 | 3 => Reply::new("503 Slow Down", "", b""),
        2 => Reply::file(request, "\"1\"", &content(0)).with(Fault::Closed(400)),
        _ => Reply::file(request, "\"1\"", &content(0)),
    });
    let text = text_of(&bucket.fetch("rows.csv").unwrap_err());
    assert!(text.contains("answered 503") && text.ends_with("(tried 3 times in 0 s; try again later)"), "{text}");
    assert_eq!((asked(&bucket).len(), reported_attempts("together/").len()), (3, 2), "{text}");
}

#[test]
fn a_list_that_breaks_is_asked_for_again() {
    const LIST: &[u8] = b"<ListBucketResult><Name>listed</Name><IsTruncated>false</IsTruncated><Contents><Key>out/a</Key>\
                          <LastModified>2015-10-21T07:28:00Z</LastModified><Size>3</Size></Contents></ListBucketResult>";
    let bucket = Bucket::new("listed", RETRIES, |request| {
        let reply = Reply::new("200 OK", "", LIST);
        if request.number == 0 { reply.with(Fault::Closed(50)) } else { reply }
    });
    assert_eq!(bucket.objects().list("").unwrap(), ["a"]);
    let reported = reported_attempts("/listed");
    assert!(reported.len() == 1 && reported[0].contains("the connection broke within the answer ("), "{reported:?}");
}

#[test]
fn a_file_whose_writing_was_not_answered_is_written_again_and_recognized() {
    for (name, found, is_written) in [("mine", b"mine", true), ("other", b"else", false)] {
        let bucket = Bucket::new(name, RETRIES, move |request| match (request.method.as_str(), request.number) {
            ("PUT", 0) => Reply::new("200 OK", "", b"").with(Fault::Reset),
            ("PUT", _) => Reply::new("412 Precondition Failed", "", b""),
            _ => Reply::file(request, "\"1\"", found),
        });
        assert_eq!(bucket.objects().create("lease", b"mine").unwrap(), is_written);
        let methods: Vec<String> = bucket.server.requests().into_iter().map(|request| request.method).collect();
        assert_eq!(methods, ["PUT", "PUT", "GET"]);
        assert_eq!(reported_attempts(&format!("/{name}/out/lease")).len(), 1);
    }
}

#[test]
fn an_answer_of_s3_that_turns_into_an_error_is_asked_for_again() {
    let bucket = Bucket::new("deleting", RETRIES, |request| match request.number {
        0 => Reply::new(
            "200 OK",
            "",
            b"<DeleteResult><Error><Key>out/a</Key><Code>SlowDown</Code></Error></DeleteResult>",
        ),
        _ => Reply::new("200 OK", "", b"<DeleteResult><Deleted><Key>out/a</Key></Deleted></DeleteResult>"),
    });
    bucket.objects().remove("a").unwrap();
    let reported = reported_attempts("/deleting");
    assert!(reported.len() == 1 && reported[0].contains("answered 200 OK with the error SlowDown"), "{reported:?}");
}
