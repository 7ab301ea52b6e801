# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_podspawn_global_optspecs
    string join \n config= h/help V/version
end

function __fish_podspawn_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_podspawn_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_podspawn_using_subcommand
    set -l cmd (__fish_podspawn_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c podspawn -n "__fish_podspawn_needs_command" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_needs_command" -s V -l version -d 'Print version'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "spawn" -d 'Run the session that sshd started, in the user\'s pod (for ForceCommand)'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "pull" -d 'Fetch an image from a registry into the user\'s store'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "images" -d 'List the images in the user\'s store'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "rmi" -d 'Remove images from the user\'s store'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "load" -d 'Bring images from files into the user\'s store'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "server-setup" -d 'Set this host up for container users, or undo it; as root'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "add-user" -d 'Make an account whose logins land in a pod; as root'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "remove-user" -d 'Remove the accounts of container users; as root'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "list-users" -d 'List the container users'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "auth-keys" -d 'Print the public keys of a container user (for AuthorizedKeysCommand)'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "doctor" -d 'Look whether this host can do what podspawn promises'
complete -c podspawn -n "__fish_podspawn_needs_command" -f -a "session-helper" -d 'See that the user\'s pod is up (for the session module of sshd)'
complete -c podspawn -n "__fish_podspawn_using_subcommand spawn" -l user -d 'The name to log in with, where several share this user id' -r
complete -c podspawn -n "__fish_podspawn_using_subcommand spawn" -l project -d 'The project whose pod to join; a `.pod` suffix is stripped' -r
complete -c podspawn -n "__fish_podspawn_using_subcommand spawn" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand spawn" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand pull" -l format -d 'Progress and result for people, or as JSON objects on standard output' -r -f -a "text\t''
json\t''"
complete -c podspawn -n "__fish_podspawn_using_subcommand pull" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand pull" -s q -l quiet -d 'Show nothing but the digest'
complete -c podspawn -n "__fish_podspawn_using_subcommand pull" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand images" -l format -d 'A table for people, or a JSON array' -r -f -a "text\t''
json\t''"
complete -c podspawn -n "__fish_podspawn_using_subcommand images" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand images" -s q -l quiet -d 'Show nothing but digests'
complete -c podspawn -n "__fish_podspawn_using_subcommand images" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand rmi" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand rmi" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand load" -l name -d 'What to call the image, instead of what the file calls it' -r
complete -c podspawn -n "__fish_podspawn_using_subcommand load" -l format -d 'Progress and result for people, or as JSON objects on standard output' -r -f -a "text\t''
json\t''"
complete -c podspawn -n "__fish_podspawn_using_subcommand load" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand load" -s q -l quiet -d 'Show nothing but the digests'
complete -c podspawn -n "__fish_podspawn_using_subcommand load" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand server-setup" -l sshd-config -d 'sshd\'s configuration' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand server-setup" -l service-name -d 'The unit of systemd that is reloaded, instead of the sshd that listens' -r
complete -c podspawn -n "__fish_podspawn_using_subcommand server-setup" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand server-setup" -l with-forwarding -d 'Open forwarding, into the pod: put the session module into sshd\'s PAM stack'
complete -c podspawn -n "__fish_podspawn_using_subcommand server-setup" -l without-forwarding -d 'Close forwarding again. Neither: as it is, and closed at first'
complete -c podspawn -n "__fish_podspawn_using_subcommand server-setup" -l dry-run -d 'Show what would be changed, and change nothing'
complete -c podspawn -n "__fish_podspawn_using_subcommand server-setup" -l remove -d 'Undo it; there must be no container user'
complete -c podspawn -n "__fish_podspawn_using_subcommand server-setup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand add-user" -l key -d 'A public key, as in ~/.ssh/id_ed25519.pub' -r
complete -c podspawn -n "__fish_podspawn_using_subcommand add-user" -l key-file -d 'A file of public keys, one a line' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand add-user" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand add-user" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand remove-user" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand remove-user" -l remove-home -d 'Remove their homes too, with images and pods'
complete -c podspawn -n "__fish_podspawn_using_subcommand remove-user" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand list-users" -l format -d 'A table for people, or a JSON array' -r -f -a "text\t''
json\t''"
complete -c podspawn -n "__fish_podspawn_using_subcommand list-users" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand list-users" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand auth-keys" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand auth-keys" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand doctor" -l user -d 'As root: this user alone, instead of every container user' -r
complete -c podspawn -n "__fish_podspawn_using_subcommand doctor" -l format -d 'For people, or a JSON array of findings' -r -f -a "text\t''
json\t''"
complete -c podspawn -n "__fish_podspawn_using_subcommand doctor" -l try-overlay -d 'Try an overlay in this store, and end' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand doctor" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand doctor" -l own -d 'Nothing but this user\'s own affairs, as this user'
complete -c podspawn -n "__fish_podspawn_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c podspawn -n "__fish_podspawn_using_subcommand session-helper" -l config -d 'The server\'s configuration, instead of /etc/podspawn/config.yaml' -r -F
complete -c podspawn -n "__fish_podspawn_using_subcommand session-helper" -s h -l help -d 'Print help (see more with \'--help\')'
