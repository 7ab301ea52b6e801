for port in 7100 7000; do
    for kind in TCP4 TCP6 UDP4 UDP6; do
        socat -T 5 "$kind-LISTEN:$port,fork,reuseaddr$(case $kind in *6) echo ,ipv6only=1 ;; esac)" 'SYSTEM:echo neighbour' &
    done
done
socat ABSTRACT-LISTEN:podspawn-neighbour,fork 'SYSTEM:echo neighbour' &
# Whoever is not reached by the others is reached from here.
answers() { echo x | timeout 5 socat -t 2 - "$1" 2>/dev/null | grep -q "$2"; }
for at in 4:127.0.0.1 6:[::1] 4:10.213.0.1 6:[fd70:6f64:0:100::1]; do
    for port in 7100 7000; do
        until answers "TCP$at:$port" neighbour && answers "UDP$at:$port" neighbour; do sleep 0.2; done
    done
done
until answers ABSTRACT-CONNECT:podspawn-neighbour neighbour; do sleep 0.2; done
for at in 4:10.213.0.2 6:[fd70:6f64:0:100::2]; do
    until answers "TCP$at:6379" ERR; do sleep 0.2; done
done
echo listening
wait
