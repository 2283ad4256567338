#!/bin/sh
# Score every user of today's data with the model in service, and put the result in place in one step.
#   RATINGS  file or glob with columns user_id, item_id, time (any format that `recsparse build` reads)
#   MODEL    a saved model's directory
#   OUTPUT   directory; OUTPUT/latest is what to read
# Run again after a kill it goes on where it was; started twice, the second waits for nothing and fails.
set -eu
: "${RATINGS:?}" "${MODEL:?}" "${OUTPUT:?}"
MEMORY=${MEMORY:-2GiB}
TOP=${TOP:-20}
TODAY=${TODAY:-$(date +%F)}

mkdir -p "$OUTPUT"
exec 9> "$OUTPUT/.lock"
flock -n 9 || { echo "another run is at work in $OUTPUT" >&2; exit 75; }

# Built once a day: its histories are what users are known by, and are not recommended again.
if [ ! -e "$OUTPUT/$TODAY/data" ]; then
    mkdir -p "$OUTPUT/$TODAY"
    recsparse build "$RATINGS" --user user_id --item item_id --time time -o "$OUTPUT/$TODAY/data"
fi

# Items that the model was not trained on are left out of the histories; users without any other get what is popular.
recsparse score "$MODEL" -o "$OUTPUT/$TODAY/recommendations" \
    --histories "$OUTPUT/$TODAY/data" --match-items --top "$TOP" --memory "$MEMORY"

ln -sfn "$TODAY/recommendations" "$OUTPUT/.latest"
mv -T "$OUTPUT/.latest" "$OUTPUT/latest"
