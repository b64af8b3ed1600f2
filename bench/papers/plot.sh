#!/bin/sh
# bench/papers/plot.sh FOLDER [SUFFIX]: draws what `make reproduce` has left in the folder: for each data set the losses of
# Deep Residual Partitioning by epoch and by CPU time (SET.svg), losses and lengths of the Low-Rank Structure
# (low_rank.svg), times and losses of Conjugate Deep Nets (conjugate.svg), bounds and losses of the poster (poster.svg);
# and for the README validation losses by time on the first set (race.svg), and figure 2's plateau (plateau.svg).
# Needs gnuplot; without it it says so, and succeeds.
set -eu
folder=$1 suffix=${2:-}
curves=$folder/curves$suffix.csv low_rank=$folder/low_rank$suffix.csv
command -v gnuplot >/dev/null || { echo "plot.sh: there is no gnuplot here: no figures" && exit 0; }

# curve METHOD COLOUR TITLE X: validation loss, and dashed the training loss, of $set, $task and $decay by column X
curve() {
    from="'< grep \"^$set,$task,$decay,$1,\" $curves'"
    echo "$from using $4:8 with lines lw 2 lc rgb '$2' title '$3',"
    echo "$from using $4:7 with lines dt 2 lc rgb '$2' notitle,"
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

race() { # TASK DECAY
    task=$1 decay=$2
    echo "set title '$set, $1'"
    [ "$task" = classifier ] && echo "set logscale y" || echo "unset logscale y"
    echo "plot $(curves 6 | grep -v "'Algorithm 1'\|notitle" | tr '\n' ' ' | sed 's/, *$//')"
}
set=$(sed 1d "$curves" | cut -d, -f1 | sed 1q)
if [ -n "$set" ]; then
    { echo "set terminal svg size 1000,380 font 'sans,13'; set output '$folder/race$suffix.svg'"
      echo "set datafile separator ','; set grid; set key below; set multiplot layout 1,2"
      echo "set xlabel 'seconds of CPU time'; set ylabel 'validation loss'; set xrange [0:*]"
      race autoencoder 0.01
      race classifier 1e-4; } | gnuplot
    echo "$folder/race$suffix.svg"
fi

# lines FILE EXPERIMENT SEED STYLE: a line for each method of the experiment
lines() {
    number=0
    printf 'plot '
    grep "^$2," "$1" | cut -d, -f2 | awk '!seen[$0]++' | while read -r method; do
        number=$((number + 1))
        printf "'< grep \"^%s,%s,%s,\" %s' using 4:5 with %s lw 2 lc %d title '%s' noenhanced," \
            "$2" "$(echo "$method" | sed 's/[()]/[&]/g')" "$3" "$1" "$4" "$number" "$method"
    done | sed 's/,$//'
    echo
}
begin() { # NAME COLUMNS ROWS
    echo "set terminal svg size 1200,$((400 * $3)) font 'sans,13'; set output '$folder/$1$suffix.svg'"
    echo "set datafile separator ','; set grid; set key below maxrows 2; set multiplot layout $3,$2"
}
conjugate=$folder/conjugate$suffix.csv poster=$folder/poster$suffix.csv
{ begin conjugate 2 2
  echo "set title 'Direct solve, by layers'; set xlabel 'layers'; set ylabel 'seconds'; set yrange [0:*]"
  lines "$conjugate" depth 0 'linespoints pt 7 ps 0.5'
  echo "set title 'and by parameters'; set xlabel 'parameters'; set logscale x"
  lines "$conjugate" parameters 0 'linespoints pt 7 ps 0.5'
  echo "unset logscale x; set logscale y; set yrange [*:*]; set xlabel 'step'; set ylabel 'loss of the batch'"
  for task in spirals digits; do
      echo "set title '$task: (H + epsilon I)^{-1} g'"
      lines "$conjugate" $task 1 lines
  done; } | gnuplot
echo "$folder/conjugate$suffix.svg"
depth=$(grep '^depth' "$poster" | tail -n 1 | cut -d, -f1)
{ begin poster 2 1
  echo "set logscale y; set title 'Bound along its step, first weights'; set xlabel 'hidden layers'; set ylabel 'times the exact curvature'"
  lines "$poster" first 1 'linespoints pt 7 ps 0.5'
  echo "set title 'Training, $depth'; set xlabel 'step'; set ylabel 'loss of the batch'"
  lines "$poster" "$depth" 1 lines; } | gnuplot
echo "$folder/poster$suffix.svg"

row() { # FIGURE
    sigma=$(grep "^$1," "$low_rank" | cut -d, -f6 | grep -vx 0 | sed 1q)
    plain="'< grep \"^$1,0,1,\" $low_rank'" computed="'< grep \"^$1,$sigma,1,\" $low_rank'"
    for column in "9 loss" "10 length"; do
        [ "${column#* }" = loss ] && echo "unset logscale y" || echo "set logscale y"
        echo "set ylabel '${column#* }'"
        echo "plot $plain using 8:${column% *} with lines lw 1.5 lc rgb '#7d8a8b' title 'its own rate'," \
            "$computed using 8:${column% *} with lines lw 1.5 lc rgb '#1e8449' title 'computed, sigma $sigma'"
    done
}
# One row of panels for each figure: loss, then length, of the first seed without and with computed lengths.
figures=$(sed 1d "$low_rank" | cut -d, -f1-5 | uniq | sort -u | sed '/^t[ea]/d')
[ -n "$figures" ] || exit 0
{ echo "set terminal svg size 1200,$((320 * $(echo "$figures" | wc -l))) font 'sans,13'; set output '$folder/low_rank$suffix.svg'"
  echo "set datafile separator ','; set grid; set key below maxrows 2; set xlabel 'step'"
  echo "set multiplot layout $(echo "$figures" | wc -l),2"
  for figure in $figures; do
      echo "set title '$(echo "$figure" | awk -F, '{ print "figure " $1 ": " $2 ", " $3 ", start " $4 ", rate " $5 }')'"
      row "$figure"
  done; } | gnuplot
echo "$folder/low_rank$suffix.svg"

figure=$(echo "$figures" | sed -n '/^2,/p')
[ -n "$figure" ] || exit 0
{ echo "set terminal svg size 1000,380 font 'sans,13'; set output '$folder/plateau$suffix.svg'"
  echo "set datafile separator ','; set grid; set key below; set multiplot layout 1,2; set xlabel 'step'"
  echo "set xrange [0:1000]; set title '12 layers of ReLU on a plateau: SGD'"
  row "$figure"; } | gnuplot
echo "$folder/plateau$suffix.svg"
