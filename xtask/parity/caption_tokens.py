#!/usr/bin/env python3
"""Tokens of odd texts by COCO's caption evaluation (pycocoevalcap, requires Java): crates/mm-tasks/tests/fixtures/caption_tokens.json.

    pip install pycocoevalcap && python xtask/parity/caption_tokens.py crates/mm-tasks/tests/fixtures/caption_tokens.json [SEED [COUNT]]

The texts of the file are tokenized again; with a seed, random texts take the place of those after the first blank one.
"""
import json, os, random, subprocess, sys, tempfile
import pycocoevalcap.tokenizer.ptbtokenizer as ptb
WORDS = """a the dog dogs man's Jack it's don't can't red-and-white U.S. Mr. Dr. St. etc. 5 10 3.5 1,000 1/2 50% $5 £10 Two he They O'Neil mid-air T-shirt TV
AT&T R&B and/or w/ I'm we'll they've isn't cannot gonna 'n' '90s 1990s 20th 2nd #1 #dog @cat :) :-) <3 café naïve ½ ° 6' 5" 10:30 12/25/2014 www.x.com x.com J. no. 3
p.m. a.m. Inc. Jr. vs. e.g. i.e. Ph.D. 😀 ❤ © ™ “ ” ‘ ’ don’t — – … ... .. - -- --- " ' ( ) [ ] { } , . ; : ! ? !! / & + = * _ ~ # @ % ^ < > |""".split()

def tokens(texts):
    """Each text between two lines of their own, so that none is the next one's context."""
    folder = os.path.dirname(os.path.abspath(ptb.__file__))
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf8", newline="", delete=False) as file:
        file.write("\nq\n".join(texts) + "\nq\n")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", ptb.STANFORD_CORENLP_3_4_1_JAR, "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", file.name]
    out = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout.decode("utf8")
    os.remove(file.name)
    kept = lambda line: " ".join(w for w in line.rstrip().split(" ") if w not in ptb.PUNCTUATIONS).split()
    return [kept(line) for line in out.split("\n")[: 2 * len(texts) : 2]]

def main(path, seed=None, count=300):
    texts = [entry[0] for entry in json.load(open(path, encoding="utf8"))]
    if seed is not None:
        r = random.Random(int(seed))
        texts = texts[: texts.index("")] if "" in texts else texts
        texts += [""] + [" ".join(r.choice(WORDS) for _ in range(r.randint(2, 8))) for _ in range(int(count))]
    json.dump(list(zip(texts, tokens(texts))), open(path, "w", encoding="utf8"), ensure_ascii=False, indent=0)

if __name__ == "__main__":
    main(*sys.argv[1:])
