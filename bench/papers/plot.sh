#!/bin/sh
# bench/papers/plot.sh FOLDER [SUFFIX]: draws what `make reproduce` has left in the folder: for each data set the losses of
# Deep Residual Partitioning by epoch and by CPU time (SET.svg), and losses and lengths of the Low-Rank Structure
# (low_rank.svg). Needs gnuplot; without it it says so, and succeeds.
set -eu
folder=$1 suffix=${2:-}
curves=$folder/curves$suffix.csv low_rank=$folder/low_rank$suffix.csv
command -v gnuplot >/dev/null || { echo "plot.sh: there is no gnuplot here: no figures" && exit 0; }

# curve METHOD COLOUR TITLE X: validation loss, and dashed the training loss, of $set, $task and $decay by column X
curve() {
    from="'< grep \"^$set,$task,$decay,$1,\" $curves'"
    echo "$from using $4:8 with lines lw 2 lc rgb '$2' title '$3', $from using $4:7 with lines dt 2 lc rgb '$2' notitle,"
}
curves() { # X
    curve algorithm_1 '#c0392b' 'Algorithm 1' "$1"
    curve adam '#2471a3' Adam "$1"
    curve sgd '#7d8a8b' SGD "$1"
    curve partitioning '#1e8449' 'rp\\_partitioning(), no rate' "$1"
}
panel() { # TASK DECAY X LABEL
    task=$1 decay=$2
    [ "$task" = classifier ] && echo "set logscale y" || echo "unset logscale y"
    echo "set xlabel '$4'; set title '$set, $1, weight decay $2'"
    echo "plot $(curves "$3" | tr '\n' ' ' | sed 's/, *$//')"
}

for set in $(sed 1d "$curves" | cut -d, -f1 | uniq); do
    { echo "set terminal svg size 1200,1200 font 'sans,13'; set output '$folder/$set$suffix.svg'"
      echo "set datafile separator ','; set grid; set key below maxrows 2; set multiplot layout 3,2; set ylabel 'loss (dashed: training)'"
      for task_decay in "autoencoder 0.01" "classifier 0.01" "classifier 1e-4"; do
          panel $task_decay 5 epoch
          panel $task_decay 6 'seconds of CPU time'
      done; } | gnuplot
    echo "$folder/$set$suffix.svg"
done

# One row of panels for each figure: loss, then length, of the first seed without and with computed lengths.
figures=$(sed 1d "$low_rank" | cut -d, -f1-5 | uniq | sort -u | sed '/^text/d')
[ -n "$figures" ] || exit 0
{ echo "set terminal svg size 1200,$((320 * $(echo "$figures" | wc -l))) font 'sans,13'; set output '$folder/low_rank$suffix.svg'"
  echo "set datafile separator ','; set grid; set key below maxrows 2; set xlabel 'step'"
  echo "set multiplot layout $(echo "$figures" | wc -l),2"
  for figure in $figures; do
      sigma=$(grep "^$figure," "$low_rank" | cut -d, -f6 | grep -vx 0 | sed 1q)
      plain="'< grep \"^$figure,0,1,\" $low_rank'" computed="'< grep \"^$figure,$sigma,1,\" $low_rank'"
      echo "set title '$(echo "$figure" | awk -F, '{ print "figure " $1 ": " $2 ", " $3 ", start " $4 ", rate " $5 }')'"
      for column in "9 loss" "10 length"; do
          [ "${column#* }" = loss ] && echo "unset logscale y" || echo "set logscale y"
          echo "set ylabel '${column#* }'"
          echo "plot $plain using 8:${column% *} with lines lw 1.5 lc rgb '#7d8a8b' title 'its own rate'," \
              "$computed using 8:${column% *} with lines lw 1.5 lc rgb '#1e8449' title 'computed, sigma $sigma'"
      done
  done; } | gnuplot
echo "$folder/low_rank$suffix.svg"
