#!/usr/bin/env python3
"""Metrics of COCO's caption evaluation (pycocoevalcap, requires Java) for unusual captions: crates/mm-tasks/tests/fixtures/captions.json.

    pip install pycocoevalcap && python xtask/parity/captions.py crates/mm-tasks/tests/fixtures/captions.json [--seed N]
"""
import argparse, json, random
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.cider.cider import Cider
parser=argparse.ArgumentParser(); parser.add_argument("out"); parser.add_argument("--seed",type=int,default=5); args=parser.parse_args(); random.seed(args.seed)
W="a the man dog's riding horse-drawn carriage, near 3.5 big (red) houses. don't can't cannot people are standing \"outside\" and/or inside: Mr. Smith's u.s. flag; 10,000 birds flying - over water! isn't it? well-known wooden tables, watches".split()
def sent(n): return " ".join(random.choice(W) for _ in range(n))
gts={i:[{"caption":sent(random.randint(4,14))} for _ in range(random.randint(1,5))] for i in range(40)}
res={}
for i in gts:
    base=random.choice(gts[i])["caption"].split(); k=[random.choice(W) if random.random()<.3 else w for w in base]
    if i%7==0: k=k[:3]
    res[i]=[{"caption":" ".join(k)}]
t=PTBTokenizer(); g=t.tokenize(gts); r=t.tokenize(res)
out={"captions":[res[i][0]["caption"] for i in gts],"references":[[c["caption"] for c in gts[i]] for i in gts],"reference_tokens":[g[i] for i in gts],"caption_tokens":[r[i][0] for i in gts]}
b,_=Bleu(4).compute_score(g,r,verbose=0); c,each=Cider().compute_score(g,r); ro,_=Rouge().compute_score(g,r)
out.update(bleu=b,cider=float(c),ciders=[float(x) for x in each],rouge=float(ro))
json.dump(out,open(args.out,"w"),indent=0); print(b,c,ro)
