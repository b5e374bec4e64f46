#!/usr/bin/env bash
# Writes crates/mm-data/tests/fixtures/audio with ffmpeg: a tone of 440 Hz at half amplitude, 1.2345 seconds, in each format, and an MP3
# of variable bit rate without a header whose first second has most of the bytes.
cd "$(dirname "$0")/../../crates/mm-data/tests/fixtures/audio"
ff() { "${FF:-ffmpeg}" -nostdin -loglevel error -y -fflags +bitexact -f lavfi -i "$@"; }
tone() { echo "aevalsrc='0.5*sin(2*PI*440*t)':d=$1:s=$2"; }
ff "aevalsrc='if(gt(t,1),0,0.8*(random(0)-0.5)*2)':d=6:s=16000" -q:a 5 -write_xing 0 loud_start.mp3
for f in mp3 m4a ogg; do ff "$(tone 1.2345 22050)" -b:a 48k $([ $f = ogg ] && echo -c:a libvorbis) tone.$f; done
ff "$(tone 0.64 16000)" -b:a 48k -c:a libvorbis tone16.ogg
ff "$(tone 0.5 8000)" tone.flac
