for port in 7100 7000; do
    for kind in TCP4 TCP6 UDP4 UDP6; do
        socat -T 5 "$kind-LISTEN:$port,fork,reuseaddr$(case $kind in *6) echo ,ipv6only=1 ;; esac)" 'SYSTEM:echo neighbour' &
    done
done
socat ABSTRACT-LISTEN:podspawn-neighbour,fork 'SYSTEM:echo neighbour' &
sleep 1
echo listening
wait
