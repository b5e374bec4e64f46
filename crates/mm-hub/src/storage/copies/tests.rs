//! Copies that several processes share.

use super::*;

const URL: &str = "s3://bucket/d-000000.tar";

fn info() -> CopyInfo {
    CopyInfo { url: URL.into(), bytes: 5, e_tag: Some("a".into()), modified: 1 }
}

fn put(copies: &Copies) -> PathBuf {
    let partial = copies.partial(URL).unwrap();
    fs::write(&partial, "bytes").unwrap();
    copies.put(&partial, &info()).unwrap()
}

#[test]
fn a_copy_that_another_process_was_given_is_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = [(); 2].map(|()| Copies::new(folder.path().join("storage")));
    let copy = put(&first);
    assert_eq!(second.give(URL, &info()).as_ref(), Some(&copy));
    first.release(URL);
    assert_eq!(fs::read(&copy).unwrap(), b"bytes");
    second.release(URL);
    assert!(!copy.exists());
    // Whoever comes later learns that there is none, and copies the file again.
    assert_eq!(first.give(URL, &info()), None);
    // A process that was not given it may delete it.
    put(&first);
    first.unpin(URL);
    Copies::new(folder.path().join("storage")).release(URL);
    assert!(!copy.exists());
}

#[test]
fn a_copy_of_what_has_changed_is_not_given() {
    let folder = tempfile::tempdir().unwrap();
    let copies = Copies::new(folder.path().join("storage"));
    let copy = put(&copies);
    assert_eq!(copies.give(URL, &CopyInfo { e_tag: Some("b".into()), ..info() }), None);
    fs::write(&copy, "cut").unwrap();
    assert_eq!(copies.give(URL, &info()), None);
    assert_eq!(copies.info(URL), None);
}

#[test]
fn the_copies_given_last_keep_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let copies = Copies::new(folder.path().join("storage"));
    let infos: Vec<CopyInfo> = (0..=MAX_IN_USE).map(|i| CopyInfo { url: format!("{URL}-{i}"), ..info() }).collect();
    for info in &infos {
        let partial = copies.partial(&info.url).unwrap();
        fs::write(&partial, "bytes").unwrap();
        copies.put(&partial, info).unwrap();
    }
    assert_eq!(copies.in_use().len(), MAX_IN_USE);
    let other = Copies::new(folder.path().join("storage"));
    infos.iter().for_each(|info| other.release(&info.url));
    let left: Vec<bool> = infos.iter().map(|info| copies.path(&info.url).exists()).collect();
    assert_eq!(left, (0..=MAX_IN_USE).map(|i| i > 0).collect::<Vec<_>>());
}

#[test]
fn threads_that_give_and_release_see_whole_copies_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let read = || {
        let copies = Copies::new(folder.path().join("storage"));
        for _ in 0..500 {
            let copy = copies.give(URL, &info()).unwrap_or_else(|| put(&copies));
            assert_eq!(fs::read(copy).unwrap(), b"bytes");
            copies.release(URL);
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(read))));
}
