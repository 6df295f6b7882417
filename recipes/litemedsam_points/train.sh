#!/usr/bin/env bash
# litemedsam-points from nothing: corpora, a teacher's masks, the training, how good it is, and the
# folder that the package carries (src/promptseg/models/litemedsam_points).
#   recipes/litemedsam_points/train.sh DATA DIR [more]
# DATA is the folder of the sample data. Two and a half hours on two cores. What is done is not done again: the
# training goes on where it stopped, the steps before it are begun anew. With `more` group M is trained on too
# (RESULTS.md says what came of it; the package carries what comes without it).
set -euo pipefail
data=$1 out=$2 more=${3:-} here=$(dirname "$0")

if [ ! -e "$out/.corpora-done" ]; then
  rm -rf "$out"/[ABCM]
  python "$here/corpora.py" "$data" --out "$out"
  touch "$out/.corpora-done"
fi

# Not trained on: what the demo shows (MNI152, StarDist's nuclei), so that it stays unseen, and what has terms
# in doubt (ATTRIBUTION.md).
left_out='mni152|stardist|histology|ihc|medscribble_btcv'
mapfile -t all < <(find "$out/A" -maxdepth 1 -name '*.corpus' | grep -v -E "$left_out" | sort)
mapfile -t labelled < <(printf '%s\n' "${all[@]}" | grep -v nolabel)

if [ ! -e "$out/.taught-done" ]; then
  rm -rf "$out/T"
  python "$here/teach.py" "${all[@]}" --out "$out/T"
  touch "$out/.taught-done"
fi

trained=("${labelled[@]}") how=(--val-every 8) name=litemedsam-points
if [ "$more" = more ]; then
  mapfile -t trained < <(printf '%s\n' "${labelled[@]}" "$out"/M/*.corpus |
    awk -F/ '{ print $NF, $0 }' | sort | cut -d' ' -f2-)
  how=(--val-every 16 --augment flips) name=more
fi

# Nobody is held out here: B is, whole. The images that choose the best state are of A.
promptseg finetune "${trained[@]}" "$out"/T/*.corpus --out "$out/$name" \
  --prompts clicks --rounds 1 --prompt-encoder --tokens both --score predicted --unit instance \
  --batch-size 4 --max-targets 4 --learning-rate 5e-4 --epochs 32 "${how[@]}" \
  --split-by image --test-share 0 --val-share 0.12 --overfit-steps 0

python "$here/measure.py" "$out"/B/*.corpus --model "$out/$name/model" --out "$out/measured-$name"
python "$here/thresholds.py" "${labelled[@]}" --model "$out/$name/model" --out "$out/$name/everything.json"
python "$here/ship.py" "$out/$name/model" --base "$out/measured-$name"/*.run \
  --everything "$out/$name/everything.json" --out "$out/$name/shipped"
